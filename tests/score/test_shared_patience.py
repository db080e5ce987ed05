"""A dead archive takes a unit's time twice over at most, and one that answers again has it back."""

import errno
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.errors import DataError
from nfbmr.score import picture_reader
from nfbmr.score.fetch import Fetcher
from nfbmr.score.plan import PlannedPicture
from nfbmr.score.shared_patience import SharedPatience

PATIENCE_S = 60.0
archives = st.lists(st.sampled_from("abcd"), max_size=300)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(archives, st.integers(1, 16))
def test_a_store_that_gives_nothing_is_waited_for_twice_as_long_as_for_a_picture(
    asked: list[str], threads: int
) -> None:
    clock = Clock()
    shared = SharedPatience(PATIENCE_S, clock)
    began_s = clock.now_s
    for start in range(0, len(asked), threads):
        together = asked[start : start + threads]
        clock.now_s += max(shared.left_s(archive) for archive in together)
        for archive in together:
            shared.note(archive, is_silent=True)
    assert clock.now_s - began_s <= 2 * PATIENCE_S
    assert clock.now_s - began_s == min(2, -(-len(asked) // threads)) * PATIENCE_S


@given(archives)
def test_beside_one_that_answers_a_dead_archive_is_waited_for_no_longer(alive: list[str]) -> None:
    clock = Clock()
    shared = SharedPatience(PATIENCE_S, clock)
    began_s = clock.now_s
    for archive in alive:
        clock.now_s += shared.left_s("dead")
        shared.note("dead", is_silent=True)
        assert shared.left_s(archive) <= PATIENCE_S
        shared.note(archive, is_silent=False)
        assert shared.left_s(archive) == PATIENCE_S
    assert clock.now_s - began_s <= 2 * PATIENCE_S
    shared.note("dead", is_silent=False)
    assert shared.left_s("dead") == PATIENCE_S


PICTURES = [
    PlannedPicture(f"/a/{n}.png", "/a", f"{n}.png", None, 9, "v", "bottle") for n in range(64)
]


@pytest.mark.parametrize("answers_from", [40, 64])
def test_the_last_pictures_of_a_dead_archive_are_asked_for_once(
    answers_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: each with its own patience, a unit took longer than a run may stall."""
    asked: Counter[int] = Counter()

    def read(entry: ArchiveEntry) -> bytes:
        number = int(entry.member.removesuffix(".png"))
        asked[number] += 1
        if number < answers_from:
            raise DataError("it cannot be read") from OSError(errno.EIO, "a disk that dies")
        return b"x"

    monkeypatch.setattr(picture_reader, "read_entry", read)
    fetched = Fetcher({}, "", "e" * 32, 0.3, last_try=True)._fetch_all(PICTURES)
    assert [picture.refused for picture, _ in fetched[:answers_from]] == ["busy"] * answers_from
    assert all(data == b"x" for _, data in fetched[answers_from:])
    assert asked[0] > 1
    assert [asked[number] for number in range(32, 64)] == [1] * 32
