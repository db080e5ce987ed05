"""Pictures that are decoded at once fit into the room, and none waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.decoding_room import DecodingRoom
from nfbmr.data.picture_file import pixels_of
from tests.fuzz import seeds


@given(st.lists(st.integers(0, 150), max_size=30), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_what_is_decoded_at_once_fits_or_is_alone(pictures: list[int], limit: int) -> None:
    room, lock = DecodingRoom(limit), threading.Lock()
    inside: list[int] = []
    broken: list[list[int]] = []

    def decode(pixels: int) -> int:
        with room.taken(pixels):
            with lock:
                inside.append(pixels)
                if sum(inside) > limit and sum(count > 0 for count in inside) > 1:
                    broken.append(list(inside))
            with lock:
                inside.remove(pixels)
        return pixels

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(decode, pictures, timeout=30)) == pictures
    assert broken == []


def test_pixels_are_those_without_it() -> None:
    for data in seeds.pictures():
        assert pixels_of(data) > 0
        found = DecodingRoom(1).decode_and_resize(data, 16, "bilinear")
        np.testing.assert_array_equal(found.pixels_HWC, decode_and_resize(data, 16).pixels_HWC)
    assert pixels_of(b"no picture") == 0
