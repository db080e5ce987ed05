"""Encoded bytes of one picture → ``uint8`` RGB pixels of the size a backbone wants.

Training and scoring go through the same functions, so that the same bytes give the same pixels.
Of a file with several pictures (TIFF pages, animations, MPO) the first is taken.
Shapes: H, W height and width.

Pillow's plug-ins are called directly instead of through ``Image.open``: its guard against
decompression bombs is one limit for the whole process, lower than ours, and warns in a way that
cannot be silenced in one thread only.
"""

from __future__ import annotations

import io
import struct
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

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

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_SHORT = 3


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block is not searched for a resolution: a damaged one would warn."""

    def _read_dpi_from_exif(self) -> None:
        return


_SIGNATURES: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", _JpegFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may cost before it is refused.

    Attributes:
        max_bytes: of the encoded picture.
        max_pixels: height times width, read from the header before any pixel is decoded. Pillow
            itself stops TIFF and WebP at 179 million, whatever is allowed here.
        max_cpu_s: of the thread that decodes, so that a busy machine refuses no picture that an
            idle one takes. Looked at whenever the decoder asks for more bytes. A progressive JPEG
            of a megabyte could otherwise keep a core busy for an hour, by thousands of scans over
            millions of pixels.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000
    max_cpu_s: float = 60.0


DEFAULT_LIMITS = DecodeLimits()


_BYTES_PER_READ_OF_SCANS = 4096
"""Of a progressive JPEG: 4 KiB hold at most some hundred scans, each of which passes all pixels."""


class _TimedBytes(io.BytesIO):
    """Encoded bytes that a decoder may read for so long."""

    def __init__(self, data: bytes, max_cpu_s: float) -> None:
        super().__init__(data)
        self._max_cpu_s = max_cpu_s
        self._ends_at = time.thread_time() + max_cpu_s

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            DecodeError: the time is over.
        """
        if time.thread_time() > self._ends_at:
            raise DecodeError(
                f"The picture takes more than the limit of {self._max_cpu_s:g} s to decode.",
                "too_slow",
            )
        return super().read(size)


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
    return DecodedPicture(_resized(image, size_px, resampling), image.height, image.width)


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
    image = _load_upright(_open(data, limits), data)
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
    image = _load_upright(_open(data, limits), data)
    try:
        return _to_rgb(image)
    except (ValueError, OSError) as error:
        raise DecodeError(
            f"The picture's pixels of mode {image.mode} cannot be converted to RGB: {error}.",
            "unsupported",
        ) from error


def _open(data: bytes, limits: DecodeLimits) -> ImageFile.ImageFile:
    """Read the header and refuse what is no picture or too large."""
    if not data:
        raise DecodeError("The picture is empty (0 bytes).", "empty")
    if len(data) > limits.max_bytes:
        raise DecodeError(
            f"The picture has {len(data)} bytes, more than the limit of {limits.max_bytes}.",
            "too_large",
        )
    factory = _factory(data)
    try:
        image = factory(_TimedBytes(data, limits.max_cpu_s))
        if image.info.get("progressive"):
            image.decodermaxblock = _BYTES_PER_READ_OF_SCANS
    except DecodeError:
        raise
    except Exception as error:  # plug-ins raise anything on damaged bytes: one unreadable picture
        raise _damaged(data, "header cannot be read", error) from error
    if image.width * image.height > limits.max_pixels:
        raise DecodeError(
            f"The picture has {image.width} x {image.height} pixels, more than the limit of "
            f"{limits.max_pixels}.",
            "too_large",
        )
    return image


def _factory(data: bytes) -> type[ImageFile.ImageFile]:
    """The plug-in for the format that the first bytes tell."""
    for signature, factory in _SIGNATURES:
        if data.startswith(signature) and (signature != b"RIFF" or data[8:12] in (b"WEBP", b"")):
            return factory
    raise DecodeError(
        f"The {len(data)} bytes beginning with {data[:8].hex(' ')} are no picture of a known "
        "format: expected JPEG, PNG, BMP, TIFF or WebP.",
        "unsupported",
    )


def _load_upright(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Decode the pixels and apply the EXIF orientation."""
    try:
        image.load()
        method = _TRANSPOSITIONS.get(_orientation(image))
        return image if method is None else image.transpose(method)
    except DecodeError:
        raise
    except Exception as error:  # plug-ins raise anything on damaged bytes: one unreadable picture
        raise _damaged(data, "pixels cannot be decoded", error) from error


def _damaged(data: bytes, what: str, error: Exception) -> DecodeError:
    reason = str(error) or type(error).__name__
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        kind = "too_large"
    elif "truncated" in reason.lower() or _is_cut_short(data):
        kind = "truncated"
    else:
        kind = "unreadable"
    return DecodeError(f"The picture of {len(data)} bytes is damaged: its {what}: {reason}.", kind)


def _is_cut_short(data: bytes) -> bool:
    """Whether the format's own end is missing; asked only of pictures that failed to decode."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-64:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little") > len(data)
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    order = "<I" if data.startswith(b"II") else ">I"
    return len(data) < 8 or struct.unpack_from(order, data, 4)[0] >= len(data)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1..8; 1 where there is none or the block is damaged.

    Read here and not by Pillow, which warns of damaged blocks. TIFF pictures are upright already:
    Pillow turns them while it loads them.
    """
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
                return int(struct.unpack_from(f"{order}H", exif, entry + 8)[0])
    except struct.error:
        return 1
    return 1


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
