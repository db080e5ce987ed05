"""Room for pictures that are decoded at the same time: a few huge ones must not take all memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nfbmr.data.decoding import DecodedPicture, decode_and_resize
from nfbmr.data.picture_file import DEFAULT_LIMITS, DecodeLimits, pixels_of


class DecodingRoom:
    """Lets threads decode at once what is together no larger than the largest picture allowed.

    One picture is always let in. One of floats takes 21 bytes per pixel while it is converted, one
    with transparency 16 (measured at 9 megapixels).

    Args:
        max_pixels: of the pictures that are decoded at the same time.
    """

    def __init__(self, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> None:
        self._max_pixels = max_pixels
        self._taken = 0
        self._changed = threading.Condition()

    def decode_and_resize(
        self, data: bytes, size_px: int, resampling: str, limits: DecodeLimits = DEFAULT_LIMITS
    ) -> DecodedPicture:
        """See ``decoding.decode_and_resize``; waits until there is room."""
        with self.taken(pixels_of(data)):
            return decode_and_resize(data, size_px, resampling, limits)

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """The block has room for so many pixels."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._taken == 0 or self._taken + pixels <= self._max_pixels
            )
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()
