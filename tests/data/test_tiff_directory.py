"""A TIFF whose directory asks for more objects than a picture has is refused at once."""

import io
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from nfbmr.data.decoding import decode_rgb
from nfbmr.data.picture_file import pixels_of
from nfbmr.data.tiff_directory import check_directory
from nfbmr.errors import DecodeError

BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16
SIZES = {BYTE: 1, SHORT: 2, LONG: 4, LONG8: 8}
STRIP_OFFSETS, STRIP_LENGTHS = 273, 279


def tiff(values: int, kind: int, order: str = "<", tag: int = STRIP_OFFSETS) -> bytes:
    """A grey TIFF of 8 x 8 pixels, one of whose tags has so many values."""
    entries = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, STRIP_OFFSETS: 8, 277: 1, 278: 8}
    entries |= {STRIP_LENGTHS: 64}
    pixels, place = bytes(range(64)), 8 + 64
    table = struct.pack(f"{order}H", len(entries))
    end = place + 2 + 12 * len(entries) + 4
    for number, value in sorted(entries.items()):
        own = (number, SHORT, 1, value) if number != tag else (number, kind, values, end)
        form = "HHIHxx" if number != tag else "HHII"
        table += struct.pack(order + form, *own)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place)
    return head + pixels + table + bytes(4) + bytes(values * SIZES[kind])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [BYTE, SHORT, LONG])
def test_strips_without_end_are_refused_before_anything_is_made_of_them(
    order: str, kind: int
) -> None:
    data = tiff(2**18 + 1, kind, order)
    tracemalloc.start()
    with pytest.raises(DecodeError, match=r"tag 273 has 262145 values, more than .* 262144") as it:
        decode_rgb(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert it.value.kind == "too_large"
    assert peak_bytes < 2**17
    assert pixels_of(data) == 0


def test_as_many_bit_depths_as_a_file_has_room_for_are_refused() -> None:
    with pytest.raises(DecodeError, match="tag 258 has 300000 values"):
        decode_rgb(tiff(300_000, SHORT, tag=258))


def test_bytes_of_a_profile_may_be_many() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "TIFF", icc_profile=bytes(2**19))
    assert decode_rgb(stream.getvalue()).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["TIFF", "BigTIFF"])
def test_a_picture_of_one_strip_per_row_is_decoded(form: str) -> None:
    stream = io.BytesIO()
    image = Image.linear_gradient("L").resize((16, 2000))
    image.save(stream, "TIFF", big_tiff=form == "BigTIFF", tiffinfo={278: 1}, strip_size=1)
    with Image.open(stream) as stored:
        assert isinstance(stored, TiffImagePlugin.TiffImageFile)
        assert len(stored.tag_v2[STRIP_OFFSETS]) == 2000
    assert (decode_rgb(stream.getvalue())[..., 0] == image).all()


def test_a_large_directory_of_a_big_tiff_is_refused() -> None:
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", 2**40)
    with pytest.raises(DecodeError, match="has 1099511627776 entries, more than the limit"):
        check_directory(head)
    strips = struct.pack("<QHHQQ", 1, STRIP_OFFSETS, LONG8, 2**30, 0)
    with pytest.raises(DecodeError, match="has 1073741824 values"):
        check_directory(head[:16] + strips)


@given(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), st.binary(max_size=200))
def test_any_bytes_pass_or_are_too_large(head: bytes, rest: bytes) -> None:
    assert kind_of(head + rest) in (None, "too_large")


def kind_of(data: bytes) -> str | None:
    try:
        check_directory(data)
    except DecodeError as error:
        return error.kind
    return None
