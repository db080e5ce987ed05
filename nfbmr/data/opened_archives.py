"""Archives that stay open between the pictures of a unit, and those that could not be opened."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class OpenedArchives(Generic[T]):
    """Opens archives, each once, one after the other.

    Threads that wait while another one fails to open the same archive are given that failure: each
    of them would find the store as silent, after as long a time.

    Args:
        open_: opens an archive, by whatever tells it from others.
        kept: how many stay open.
    """

    def __init__(self, open_: Callable[..., T], kept: int) -> None:
        self._open = open_
        self._kept = kept
        self._lock = threading.Lock()
        self._opened: OrderedDict[Hashable, T] = OrderedDict()
        self._failed: dict[Hashable, tuple[float, Exception]] = {}

    def get(self, *key: Hashable) -> T:
        """The open archive; whatever opening it raises is raised here."""
        asked = time.monotonic()
        with self._lock:
            failed_at, failure = self._failed.get(key, (asked, None))
            if failure is not None and failed_at > asked:
                raise failure
            if key not in self._opened:
                self._opened[key] = self._opened_or_noted(key)
                while len(self._opened) > self._kept:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(key)
            return self._opened[key]

    def clear(self) -> None:
        """Close all."""
        with self._lock:
            self._opened.clear()
            self._failed.clear()

    def _opened_or_noted(self, key: tuple[Hashable, ...]) -> T:
        self._failed.clear()
        try:
            return self._open(*key)
        except Exception as error:
            self._failed[key] = (time.monotonic(), error)
            raise
