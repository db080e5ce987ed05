"""Time for pictures that are decoded together: a few costly ones must not hold up all others.

A picture that needs its whole limit of CPU seconds is one error row. Many of them beside each
other, each with its whole limit, would take longer than a pipeline may stand still.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

from nfbmr.data.decoding import DecodedPicture, DecodePicture
from nfbmr.data.picture_file import DEFAULT_LIMITS, DecodeLimits
from nfbmr.errors import DecodeError

ORDINARY_CPU_S = 2.0
"""So long any picture may take, whatever was taken before it: ordinary ones need a part of it."""

_SHARE_OF_STALL = 4
"""Two units share an actor's threads, and a busy machine takes longer than it counts."""


class DecodingBudget:
    """Limits of the pictures of one unit or task, lower ones the more of them were costly.

    A picture may take half of what is left, at most its ordinary limit. What it takes beyond
    ``ordinary_cpu_s`` is taken from what is left, so that no number of ordinary pictures uses the
    budget up. Threads may share it.

    Args:
        pictures: of the unit.
        stall_timeout_s: so long a pipeline may stand still. A quarter of it is for decoding beyond
            the ordinary, an eighth at most for what is ordinary.
        threads: that decode at the same time.
        limits: of a picture as long as there is enough left.
        ordinary_cpu_s: that every picture may take, unless the unit has so many pictures that
            these alone would take too long.
    """

    def __init__(
        self,
        pictures: int,
        stall_timeout_s: float = math.inf,
        threads: int = 1,
        limits: DecodeLimits = DEFAULT_LIMITS,
        ordinary_cpu_s: float = ORDINARY_CPU_S,
    ) -> None:
        self._limits = limits
        self._left_s = stall_timeout_s / _SHARE_OF_STALL
        shared_s = self._left_s / 2 * threads / max(1, pictures)
        self.ordinary_cpu_s = min(ordinary_cpu_s, shared_s)
        self._lock = threading.Lock()

    def limits(self) -> DecodeLimits:
        """What the next picture may cost."""
        with self._lock:
            half_s = max(self.ordinary_cpu_s, self._left_s / 2)
        return replace(self._limits, max_cpu_s=min(self._limits.max_cpu_s, half_s))

    def decode_and_resize(
        self, decode_one: DecodePicture, data: bytes, size_px: int, resampling: str
    ) -> DecodedPicture:
        """Decode within what is left; see ``decoding.decode_and_resize``.

        Args:
            decode_one: decodes a picture.
            data: the encoded picture.
            size_px: side of the square that it is brought to.
            resampling: a name of ``RESAMPLING``.
        """
        limits = self.limits()
        began, least_s = time.thread_time(), 0.0
        try:
            return decode_one(data, size_px, resampling, limits)
        except DecodeError as error:
            if error.kind != "too_slow":
                raise
            least_s = limits.max_cpu_s  # A child process counts its own time.
            if limits.max_cpu_s == self._limits.max_cpu_s:
                raise
            raise DecodeError(
                f"{error} That is less than the usual {self._limits.max_cpu_s:g} s, since pictures "
                "beside it took so long: beside others it may be decoded.",
                error.kind,
            ) from error
        finally:
            self._take(max(least_s, time.thread_time() - began))

    def _take(self, cpu_s: float) -> None:
        with self._lock:
            self._left_s -= max(0.0, cpu_s - self.ordinary_cpu_s)
