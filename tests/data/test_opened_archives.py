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
    tries, asking, all_ask = [], [], threading.Event()

    def open_(name: str) -> str:
        tries.append(name)
        assert all_ask.wait(60)
        raise TimeoutError(name)

    archives = OpenedArchives(open_, kept=2)

    def ask(number: int) -> None:
        asking.append(number)
        with pytest.raises(TimeoutError):
            archives.get("a")

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(8)]
        while len(asking) < 8:
            time.sleep(0.01)
        time.sleep(0.5)  # The last one is between its note and the question.
        all_ask.set()
        for each in asked:
            each.result()
    assert tries == ["a"]
    with pytest.raises(TimeoutError):
        archives.get("a")
    assert tries == ["a", "a"]
