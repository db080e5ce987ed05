"""Work that waits for others, done beside the main thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs calls in threads, so many at a time; they do not keep the process from ending.

    Args:
        at_once: so many calls at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self._allowed = threading.Semaphore(at_once)
        self._done: queue.Queue[T | BaseException] = queue.Queue()
        self._pending = 0

    def run(self, call: Callable[[], T]) -> None:
        """Begin a call as soon as there is room."""

        def work() -> None:
            with self._allowed:
                try:
                    self._done.put(call())
                except BaseException as error:  # Raised again in the thread that takes results.
                    self._done.put(error)

        self._pending += 1
        threading.Thread(target=work, daemon=True).start()

    def finished(self, *, wait: bool = False) -> list[T]:
        """Results that have come since the last time.

        Args:
            wait: until all calls have ended.

        Raises:
            BaseException: what a call raised.
        """
        results: list[T] = []
        while self._pending and (wait or not self._done.empty()):
            result = self._done.get()
            self._pending -= 1
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return results
