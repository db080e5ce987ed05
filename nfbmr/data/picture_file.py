"""Encoded bytes of one picture → an upright Pillow image, within limits.

Pillow's plug-ins are called directly instead of through ``Image.open``: its guard against
decompression bombs is one limit for the whole process, lower than ours, and warns in a way that
cannot be silenced in one thread only.
"""

from __future__ import annotations

import io
import struct
import time
from dataclasses import dataclass

from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from nfbmr.data.tiff_directory import check_directory
from nfbmr.errors import DecodeError

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
            millions of pixels. Of its header, no more than 5 s: a decoder keeps what it reads
            there, and millions of empty blocks would fill the memory.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000
    max_cpu_s: float = 60.0


DEFAULT_LIMITS = DecodeLimits()


_BYTES_PER_READ_OF_SCANS = 4096
"""Of a progressive JPEG: 4 KiB hold at most some hundred scans, each of which passes all pixels."""


_HEADER_CPU_S = 5.0


class _TimedBytes(io.BytesIO):
    """Encoded bytes that a decoder may read for so long."""

    def __init__(self, data: bytes, max_cpu_s: float) -> None:
        super().__init__(data)
        self.allow(max_cpu_s)

    def allow(self, max_cpu_s: float) -> None:
        """From now on, so many CPU seconds of this thread."""
        self._max_cpu_s = max_cpu_s
        self._ends_at = time.thread_time() + max_cpu_s

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            DecodeError: the time is over.
        """
        if time.thread_time() > self._ends_at:
            raise DecodeError(
                f"The picture takes more than the limit of {self._max_cpu_s:.3g} s to decode.",
                "too_slow",
            )
        return super().read(size)


def open_upright(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Decode a picture's pixels as they are stored, and apply the EXIF orientation.

    Args:
        data: the encoded picture: JPEG, PNG, BMP, TIFF or WebP.
        limits: what it may cost.

    Raises:
        DecodeError: of kind ``empty``, ``unsupported``, ``too_large``, ``too_slow``, ``truncated``
            or ``unreadable``.
    """
    return _load_upright(_open(data, limits), data)


def pixels_of(data: bytes) -> int:
    """Height times width, as the header says; 0 for what is refused before it is decoded."""
    try:
        image = _open(data, DEFAULT_LIMITS)
    except DecodeError:
        return 0
    return image.width * image.height


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
    if factory is TiffImagePlugin.TiffImageFile:
        check_directory(data)
    stream = _TimedBytes(data, min(limits.max_cpu_s, _HEADER_CPU_S))
    try:
        image = factory(stream)
        stream.allow(limits.max_cpu_s)
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
        f"The {len(data)} bytes are no picture of a known format: expected JPEG, PNG, BMP, TIFF "
        "or WebP.",
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
