"""Bytes that are no whole picture are refused with the right word, and nothing else is raised."""

import functools
import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from nfbmr.data.decoding import decode_and_resize, decode_mask, decode_rgb
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DecodeError

SHARED = Path(__file__).parents[2].parent / "shared"
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


@functools.cache
def encoded(fmt: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, fmt)
    return out.getvalue()


def kind_of(data: bytes, limits: DecodeLimits | None = None) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_rgb(data, limits or DecodeLimits())
    return caught.value.kind


def attempt(
    decode: Callable[[bytes, DecodeLimits], np.ndarray], data: bytes, limits: DecodeLimits
) -> np.ndarray | DecodeError:
    try:
        return decode(data, limits)
    except DecodeError as error:
        return error


def test_no_bytes_and_no_picture() -> None:
    assert kind_of(b"") == "empty"
    for data in (b"hello", b"GIF89a" + bytes(40), b"RIFF\x10\0\0\0WAVEfmt ", b"%PDF-1.7"):
        assert kind_of(data) == "unsupported"


@given(st.sampled_from(FORMATS), st.floats(0.0, 1.0, exclude_max=True))
@example("PNG", 0.05)
@settings(max_examples=120, deadline=None)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damaged TIFF tags
def test_a_cut_picture_is_an_error_or_whole(fmt: str, share: float) -> None:
    whole = encoded(fmt)
    cut = whole[: int(len(whole) * share)]
    outcome = attempt(decode_rgb, cut, DecodeLimits())
    if isinstance(outcome, DecodeError):
        assert outcome.kind in ("truncated", "unreadable", "unsupported", "empty")
    else:
        np.testing.assert_array_equal(outcome, decode_rgb(whole))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_picture_is_called_truncated(fmt: str, share: float) -> None:
    whole = encoded(fmt)
    assert kind_of(whole[: int(len(whole) * share)]) == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damaged TIFF tags
def test_damaged_bytes_raise_nothing_but_decode_errors(
    fmt: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(fmt))
    for place, value in changes:
        data[place % min(len(data), 400)] = value
    for decode in (decode_rgb, decode_mask):
        outcome = attempt(decode, bytes(data), DecodeLimits(max_pixels=10**6))
        if isinstance(outcome, DecodeError):
            assert outcome.kind in ("unsupported", "truncated", "unreadable", "too_large")
            assert str(outcome)


def bmp_header(width: int, height: int) -> bytes:
    """A one-bit bitmap that claims a size; its pixels are not there."""
    out = io.BytesIO()
    Image.new("1", (64, 64)).save(out, "BMP")
    data = bytearray(out.getvalue())
    data[18:22] = width.to_bytes(4, "little")
    data[22:26] = height.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.filterwarnings("error")
def test_limits_are_checked_before_pixels_are_decoded() -> None:
    assert kind_of(bmp_header(60_000, 60_000)) == "too_large"
    assert kind_of(bmp_header(13_700, 13_700)) == "truncated", "188 million pixels are allowed"
    assert kind_of(encoded("PNG"), DecodeLimits(max_pixels=24 * 31 - 1)) == "too_large"
    assert decode_rgb(encoded("PNG"), DecodeLimits(max_pixels=24 * 31)).shape == (24, 31, 3)
    assert kind_of(encoded("PNG"), DecodeLimits(max_bytes=100)) == "too_large"


def test_bombs_in_many_threads_leave_pillow_and_warnings_as_they_were() -> None:
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    kinds: list[str] = []

    def work() -> None:
        for _ in range(20):
            kinds.append(kind_of(bmp_header(60_000, 60_000)))
            decode_rgb(encoded("PNG"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds == ["too_large"] * 80
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_real_photographs_and_masks() -> None:
    folder = SHARED / "data" / "mtd" / "MT_Blowhole" / "Imgs"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the magnetic tile photographs are not in the repo")
    masks = sorted(folder.glob("*.png"))[:10]
    for path in masks:
        mask = decode_mask(path.read_bytes())
        picture = decode_and_resize(path.with_suffix(".jpg").read_bytes(), 64)
        assert mask.shape == (picture.height, picture.width)
        assert 0 < mask.mean() < 0.5
        assert picture.pixels_HWC.std() > 1
