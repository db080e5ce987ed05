"""Encoded bytes of one picture → ``uint8`` RGB pixels of the size a backbone wants.

Training and scoring go through the same functions, so that the same bytes give the same pixels.
Of a file with several pictures (TIFF pages, animations, MPO) the first is taken.
Shapes: H, W height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.picture_file import DEFAULT_LIMITS, DecodeLimits, open_upright
from nfbmr.errors import ConfigError, DecodeError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""Names with these endings (in any case) are pictures."""

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters by name; all of them average over the source area when shrinking."""

FLOAT_OVERSHOOT = 1 / 16
"""How far a floating-point picture may leave 0..1, as sharpening makes it, and still be taken."""


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """Pixels brought to a backbone's size, and the size they had before.

    Attributes:
        pixels_HWC: (height, width, 3) as asked for, uint8, contiguous.
        height: of the upright picture before it was resized, pixels.
        width: likewise.
    """

    pixels_HWC: NDArray[np.uint8]
    height: int
    width: int


DecodePicture = Callable[[bytes, int, str, DecodeLimits], DecodedPicture]
"""What decodes like ``decode_and_resize``."""


def decode_and_resize(
    data: bytes,
    size_px: int | tuple[int, int],
    resampling: str = "bilinear",
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> DecodedPicture:
    """Decode a picture and squeeze it to a size.

    The result is that of ``decode_rgb`` followed by ``resize_rgb``, for every format: JPEG's
    cheaper decoding at reduced size is not used, because it would resample differently.

    Args:
        data: the encoded picture.
        size_px: side of a square, or (height, width) of the result.
        resampling: a name of ``RESAMPLING``.
        limits: what it may cost.

    Raises:
        ConfigError: the size or the resampling does not exist.
        DecodeError: see ``decode_rgb``.
    """
    image = _open_rgb(data, limits)
    try:
        pixels_HWC = _resized(image, size_px, resampling)
    except MemoryError as error:
        raise _too_large(image) from error
    return DecodedPicture(pixels_HWC, image.height, image.width)


def resize_rgb(
    image_HWC: NDArray[np.uint8], size_px: int | tuple[int, int], resampling: str = "bilinear"
) -> NDArray[np.uint8]:
    """Squeeze a picture to a size; its aspect ratio is not kept.

    Args:
        image_HWC: (H, W, 3), uint8.
        size_px: side of a square, or (height, width) of the result.
        resampling: a name of ``RESAMPLING``.

    Returns:
        (height, width, 3), uint8, contiguous.

    Raises:
        ConfigError: the size or the resampling does not exist.
        ValueError: the picture has another shape or type.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(
            f"resize_rgb got {image_HWC.dtype} pixels of shape {image_HWC.shape}, expected uint8 "
            "of shape (H, W, 3): decode with decode_rgb first."
        )
    return _resized(Image.fromarray(image_HWC), size_px, resampling)


def decode_rgb(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode a picture of any kind to RGB.

    The EXIF orientation is applied; a damaged EXIF block is ignored. Values are brought to 0..255
    by rules that are the same for every picture, never stretched one by one, so that scores
    compare:

    - grey of 16 bits (and integers of 32): 0..65535 is divided by 257 and rounded;
    - colour of 16 bits: the high byte, which is what Pillow keeps;
    - floating point: 0..1 is multiplied by 255, with what is beyond clipped and NaN as black.
      Integers and floats that plainly use another range are refused rather than guessed at;
    - transparent pixels are laid over black; CMYK and palettes are converted without profiles.

    Args:
        data: the encoded picture: JPEG, PNG, BMP, TIFF or WebP.
        limits: what it may cost.

    Returns:
        (H, W, 3), uint8, contiguous.

    Raises:
        DecodeError: of kind ``empty`` (no bytes), ``unsupported`` (another format, or a range of
            values that is not defined), ``too_large``, ``too_slow``, ``truncated`` or
            ``unreadable``.
    """
    return np.array(_open_rgb(data, limits))


def decode_mask(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.bool_]:
    """Decode a mask; a pixel with any non-zero colour channel is defective.

    A palette's colours count, not its indices; transparency does not count.

    Args:
        data: the encoded mask.
        limits: what it may cost.

    Returns:
        (H, W), bool.

    Raises:
        DecodeError: see ``decode_rgb``.
    """
    image = open_upright(data, limits)
    if image.mode in ("RGBA", "LA", "PA", "P"):
        image = image.convert("RGB")
    pixels = np.array(image)
    mask: NDArray[np.bool_] = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(-1)
    return mask


def _resized(
    image: Image.Image, size_px: int | tuple[int, int], resampling: str
) -> NDArray[np.uint8]:
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if height < 1 or width < 1:
        raise ConfigError(
            f"The image size is {height} x {width} pixels: expected at least 1 x 1; give a larger "
            "one."
        )
    if resampling not in RESAMPLING:
        raise ConfigError(
            f"The resampling {resampling!r} does not exist: use one of {', '.join(RESAMPLING)}."
        )
    return np.array(image.resize((width, height), RESAMPLING[resampling]))


def _open_rgb(data: bytes, limits: DecodeLimits) -> Image.Image:
    image = open_upright(data, limits)
    try:
        return _to_rgb(image)
    except MemoryError as error:
        raise _too_large(image) from error
    except (ValueError, OSError) as error:
        raise DecodeError(
            f"The picture's pixels of mode {image.mode} cannot be converted to RGB: {error}.",
            "unsupported",
        ) from error


def _too_large(image: Image.Image) -> DecodeError:
    return DecodeError(
        f"There is not enough memory to convert the picture's {image.width} x {image.height} "
        f"pixels of mode {image.mode}.",
        "too_large",
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_from_integers(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("LA") if image.mode == "La" else image
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, straight.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_integers(values_HW: NDArray[np.integer]) -> NDArray[np.uint8]:
    low, high = int(values_HW.min()), int(values_HW.max())
    if low < 0 or high > 65535:
        raise DecodeError(
            f"The picture has integer values from {low} to {high}: expected 0..65535; convert it "
            "to 16 bits.",
            "unsupported",
        )
    return ((values_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_floats(values_HW: NDArray[np.floating]) -> NDArray[np.uint8]:
    known_HW = np.where(np.isnan(values_HW), 0.0, values_HW)
    low, high = float(known_HW.min()), float(known_HW.max())
    if low < -FLOAT_OVERSHOOT or high > 1 + FLOAT_OVERSHOOT:
        raise DecodeError(
            f"The picture has floating-point values from {low:g} to {high:g}: expected 0..1; "
            "divide by the camera's full range.",
            "unsupported",
        )
    scaled_HW = np.rint(np.clip(known_HW, 0.0, 1.0) * 255)
    return np.asarray(scaled_HW, dtype=np.uint8)
