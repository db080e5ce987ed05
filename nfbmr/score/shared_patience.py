"""Patience with archives that a store does not give, shared by the pictures of one unit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_UNIT = ""
"""Stands for all archives of the unit together: no archive has an empty address."""


class SharedPatience:
    """How long each picture is tried, by what became of those before it.

    Each with its own patience, the pictures of a dead archive would take longer than a run may
    stand still. So once one picture has used its patience up, those of the same archive, and all
    of the unit, share as much once more; then each is tried once. Any answer begins anew: a store
    that is busy for a while is waited for as before.

    Safe to use from many threads.

    Args:
        patience_s: of the first picture.
        now: the time, seconds.
    """

    def __init__(self, patience_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._now = now
        self._silent_since: dict[str, float] = {}
        self._lock = threading.Lock()

    def left_s(self, archive: str) -> float:
        """How long a picture of an archive is tried again; 0 for once."""
        with self._lock:
            found = [self._silent_since.get(name) for name in (archive, _UNIT)]
        since = [one for one in found if one is not None]
        if not since:
            return self._patience_s
        return min(self._patience_s, max(0.0, min(since) + self._patience_s - self._now()))

    def note(self, archive: str, is_silent: bool) -> None:
        """Take what became of a picture: patience was of no use, or the store answered."""
        with self._lock:
            for name in (archive, _UNIT):
                if is_silent:
                    self._silent_since.setdefault(name, self._now())
                else:
                    self._silent_since.pop(name, None)
