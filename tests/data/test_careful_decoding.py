"""Decoding in a child process gives the same, and costs one picture where it is killed."""

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from nfbmr.data.careful_decoding import CarefulDecoder
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DecodeError, WorkerError
from tests.fuzz import seeds

KILLER = b"kills whatever decodes it"
# The real child, but for a decoder that one picture crashes.
CRASHING = f"""
import os, signal
from nfbmr.data import decoding_child

real = decoding_child.decode_and_resize

def crash(data, *others):
    if data == {KILLER!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"never ends":
        signal.pause()
    if data == b"takes a gigabyte":
        bytearray(2**30)
    print("a decoder that prints")
    return real(data, *others)

decoding_child.decode_and_resize = crash
decoding_child.main()
"""


@pytest.fixture
def careful() -> Iterator[CarefulDecoder]:
    decoder = CarefulDecoder((sys.executable, "-c", CRASHING))
    yield decoder
    decoder.close()


def test_pixels_and_errors_are_those_of_this_process() -> None:
    careful = CarefulDecoder()
    decoded = 0
    for data in (*seeds.pictures(), b"", b"no picture"):
        found = outcome(careful.decode_and_resize, data)
        assert found == outcome(decode_and_resize, data)
        decoded += isinstance(found[0], bytes)
    assert decoded >= 5
    careful.close()


def outcome(decode: Any, data: bytes) -> tuple[Any, ...]:
    """Pixels and size, or the error's words and kind."""
    try:
        found = decode(data, (16, 24), "box")
    except DecodeError as error:
        return str(error), error.kind
    return found.pixels_HWC.tobytes(), found.pixels_HWC.shape, found.height, found.width


def test_a_picture_that_kills_the_child_costs_no_other(careful: CarefulDecoder) -> None:
    good = seeds.pictures()[0]
    for _ in range(2):
        assert careful.decode_and_resize(good, 16).pixels_HWC.shape == (16, 16, 3)
        with pytest.raises(DecodeError, match="was killed") as caught:
            careful.decode_and_resize(KILLER, 16)
        assert caught.value.kind == "killed"
    with pytest.raises(DecodeError) as caught:
        careful.decode_and_resize(b"x" * 100, 16, "box", DecodeLimits(max_bytes=10))
    assert caught.value.kind == "too_large"


def test_a_child_has_memory_for_the_largest_picture_and_no_more(careful: CarefulDecoder) -> None:
    """Where one process too large makes the kernel end a whole container."""
    most = DecodeLimits(max_bytes=2**20, max_pixels=2**20)
    for _ in range(2):
        with pytest.raises(DecodeError, match="takes too much memory") as caught:
            careful.decode_and_resize(b"takes a gigabyte", 16, "box", most)
        assert caught.value.kind == "too_large"
        floats = encoded(Image.new("F", (1024, 1024)), "TIFF")
        more = replace(most, max_bytes=len(floats))
        assert careful.decode_and_resize(floats, 16, "box", more).height == 1024


def encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def test_a_child_that_does_not_answer_is_ended() -> None:
    hanging = CarefulDecoder((sys.executable, "-c", CRASHING), spare_s=1.0)
    with pytest.raises(DecodeError, match="in time") as caught:
        hanging.decode_and_resize(b"never ends", 16, "box", DecodeLimits(max_cpu_s=0.0))
    assert caught.value.kind == "too_slow"
    hanging.close()


def test_a_child_that_cannot_start_is_no_fault_of_the_picture() -> None:
    with pytest.raises(WorkerError, match="did not start"):
        CarefulDecoder((sys.executable, "-c", "")).decode_and_resize(b"", 16)
