"""A picture that would cost too much is refused: by bytes, by pixels, by time."""

import io
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from nfbmr.data import picture_file
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import read_entry
from nfbmr.data.decoding import decode_mask, decode_rgb
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DataError, DecodeError

SOS, EOI = 0xDA, 0xD9


def last_scan(jpeg: bytes) -> tuple[int, int]:
    """Where the last scan of a JPEG begins and ends."""
    place, found = 2, (0, 0)
    while jpeg[place + 1] != EOI:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] == SOS:
            while not (jpeg[end] == 0xFF and jpeg[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
            found = (place, end)
        place = end
    return found


def jpeg_of_many_scans(side: int, scans: int) -> bytes:
    """A valid progressive JPEG whose last scan, of some 30 bytes, is there many times."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 7).save(buffer, "JPEG", progressive=True, quality=50)
    jpeg = buffer.getvalue()
    start, end = last_scan(jpeg)
    return jpeg[:end] + jpeg[start:end] * scans + jpeg[end:]


def test_a_small_file_that_would_take_for_ever_is_stopped() -> None:
    """As it is, its time grows with the number of scans; here it is cut off."""
    small, large = jpeg_of_many_scans(1000, 100), jpeg_of_many_scans(1000, 5000)
    assert len(large) < 2**18
    started = time.thread_time()
    decode_rgb(small)
    taken_s = time.thread_time() - started
    limits = DecodeLimits(max_cpu_s=taken_s)
    started = time.thread_time()
    with pytest.raises(DecodeError, match="takes more than the limit") as caught:
        decode_rgb(large, limits)
    assert caught.value.kind == "too_slow"
    assert time.thread_time() - started < 25 * taken_s  # undisturbed: 50 times


def test_a_header_has_less_time_than_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder keeps an object of every block of it, however empty."""
    monkeypatch.setattr(picture_file, "_HEADER_CPU_S", 0.05)
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    with pytest.raises(DecodeError, match=r"more than the limit of 0\.05 s") as caught:
        decode_rgb(jpeg[:2] + b"\xff\xe7\0\2" * 500_000 + jpeg[2:])
    assert caught.value.kind == "too_slow"
    assert (decode_rgb(jpeg[:2] + b"\xff\xe7\0\2" * 10 + jpeg[2:]) == 0).all()


def test_time_limits_masks_too() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_mask(jpeg_of_many_scans(1000, 5000), DecodeLimits(max_cpu_s=0.01))
    assert caught.value.kind == "too_slow"


def test_a_picture_within_its_time_is_the_same_picture() -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((640, 480)).save(buffer, "JPEG", progressive=True)
    limited = decode_rgb(buffer.getvalue(), DecodeLimits(max_cpu_s=50))
    assert (limited == decode_rgb(buffer.getvalue())).all()


def png_header_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_a_picture_that_claims_too_many_pixels_is_refused_by_its_header() -> None:
    with pytest.raises(DecodeError, match="more than the limit of 200000000") as caught:
        decode_rgb(png_header_of(60_000, 60_000))
    assert caught.value.kind == "too_large"


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    entry = ArchiveEntry(str(tmp_path / "none.tar"), "a/1.png", 512, 300 * 2**20)
    with pytest.raises(DataError, match="more than the limit of 268435456"):
        read_entry(entry)
    with pytest.raises(DecodeError) as caught:
        decode_rgb(bytes(11), DecodeLimits(max_bytes=10))
    assert caught.value.kind == "too_large"
