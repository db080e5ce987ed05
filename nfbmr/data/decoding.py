"""Encoded bytes of one picture → ``uint8`` RGB pixels of the size a backbone wants.

Training and scoring go through the same functions, so that the same bytes give the same pixels.
Shapes: H, W height and width.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nfbmr.errors import DecodeError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""Names with these endings (in any case) are pictures."""

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may cost before it is refused.

    Attributes:
        max_bytes: of the encoded picture.
        max_pixels: height times width, read from the header before any pixel is decoded.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """Pixels brought to a backbone's size, and the size they had before.

    Attributes:
        pixels_HWC: (size, size, 3), uint8, contiguous.
        height: of the picture as it was decoded, pixels.
        width: likewise.
    """

    pixels_HWC: NDArray[np.uint8]
    height: int
    width: int


def decode_and_resize(
    data: bytes, size_px: int, resampling: str = "bilinear", limits: DecodeLimits = DEFAULT_LIMITS
) -> DecodedPicture:
    """Decode a picture and squeeze it to a square.

    Args:
        data: the encoded picture.
        size_px: height and width of the result.
        resampling: ``bilinear``, ``bicubic``, ``box`` or ``lanczos``; Pillow's, which average
            over the source area when shrinking.
        limits: what it may cost.

    Raises:
        DecodeError: see ``decode_rgb``.
    """
    image = _open_rgb(data, limits)
    resized = image.resize((size_px, size_px), _RESAMPLING[resampling])
    return DecodedPicture(np.array(resized), image.height, image.width)


def decode_rgb(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode a picture of any kind to RGB.

    The EXIF orientation is applied. Grey values of 16 bits are divided by 257 (0..65535 → 0..255),
    never stretched picture by picture, so that scores compare; floating-point values are taken as
    0..1. Transparent pixels are shown on black. CMYK and palettes are converted.

    Returns:
        (H, W, 3), uint8, contiguous.

    Raises:
        DecodeError: of kind ``empty``, ``unsupported`` (no known picture format), ``too_large``,
            ``truncated`` or ``unreadable``.
    """
    return np.array(_open_rgb(data, limits))


def decode_mask(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.bool_]:
    """Decode a mask; a pixel with any non-zero channel is defective.

    Returns:
        (H, W), bool.

    Raises:
        DecodeError: see ``decode_rgb``.
    """
    image = _load(_open(data, limits), len(data))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "P"):
        image = image.convert("RGB")
    pixels = np.array(image)
    mask: NDArray[np.bool_] = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(-1)
    return mask


def _open_rgb(data: bytes, limits: DecodeLimits) -> Image.Image:
    return _to_rgb(ImageOps.exif_transpose(_load(_open(data, limits), len(data))))


def _open(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Read the header and refuse what is no picture or too large."""
    if not data:
        raise DecodeError("The picture is empty (0 bytes).", "empty")
    if len(data) > limits.max_bytes:
        raise DecodeError(
            f"The picture has {len(data)} bytes, more than the limit of {limits.max_bytes}.",
            "too_large",
        )
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is lower and would only warn; ours is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise DecodeError(
            f"The {len(data)} bytes beginning with {data[:8].hex(' ')} are no picture of a known "
            f"format ({', '.join(_FORMATS)}).",
            "unsupported",
        ) from error
    except Image.DecompressionBombError as error:
        raise DecodeError(f"The picture is too large: {error}", "too_large") from error
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise DecodeError(f"The picture's header cannot be read: {error}.", "unreadable") from error
    if image.width * image.height > limits.max_pixels:
        raise DecodeError(
            f"The picture has {image.width}×{image.height} pixels, more than the limit of "
            f"{limits.max_pixels}.",
            "too_large",
        )
    return image


def _load(image: Image.Image, size_bytes: int) -> Image.Image:
    """Decode the pixels."""
    try:
        image.load()
    except (OSError, EOFError) as error:
        truncated = "truncated" in str(error) or "end of" in str(error).lower()
        kind = "truncated" if truncated else "unreadable"
        raise DecodeError(
            f"The {image.format} picture of {size_bytes} bytes cannot be decoded: {error}.", kind
        ) from error
    except (ValueError, SyntaxError, struct.error, MemoryError) as error:
        raise DecodeError(
            f"The {image.format} picture of {size_bytes} bytes is damaged: {error}.", "unreadable"
        ) from error
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(_from_16_bit(values)).convert("RGB")
    if image.mode == "F":
        values_HW = np.nan_to_num(np.asarray(image), nan=0.0)
        return Image.fromarray(
            np.rint(np.clip(values_HW, 0.0, 1.0) * 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(values_HW: NDArray[np.int64]) -> NDArray[np.uint8]:
    clipped = np.clip(values_HW, 0, 65535)
    return np.asarray((clipped + 128) // 257, dtype=np.uint8)
