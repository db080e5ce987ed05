"""Archives stay open; who waits for one that cannot be opened is told so at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nfbmr.data.opened_archives import OpenedArchives


def test_an_archive_is_opened_once_and_the_longest_unused_is_closed() -> None:
    opened: list[str] = []

    def open_(name: str) -> str:
        opened.append(name)
        return name.upper()

    archives = OpenedArchives(open_, kept=2)
    assert [archives.get(name) for name in "abab"] == ["A", "B", "A", "B"]
    assert opened == ["a", "b"]
    archives.get("c")
    archives.get("b")
    assert opened == ["a", "b", "c"]
    archives.get("a")
    assert opened == ["a", "b", "c", "a"]


def test_threads_that_wait_share_a_failure_and_later_ones_try_again() -> None:
    tries = []
    waiting = threading.Barrier(8)

    def open_(name: str) -> str:
        tries.append(name)
        time.sleep(0.3)
        raise TimeoutError(name)

    archives = OpenedArchives(open_, kept=2)

    def ask(_: int) -> None:
        waiting.wait()
        with pytest.raises(TimeoutError):
            archives.get("a")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert tries == ["a"]
    with pytest.raises(TimeoutError):
        archives.get("a")
    assert tries == ["a", "a"]
