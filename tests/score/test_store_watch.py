"""One refused picture is an error in the end; a store that refuses everything ends the run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from nfbmr.errors import StoreError
from nfbmr.score.store_watch import (
    UNITS_BEFORE_STOP,
    StoreWatch,
    hold_where_all_are_gone,
    is_held,
    refusals,
    settle,
    settle_denied,
)


@dataclass
class Picture:
    content_hash: str | None = None
    error: str | None = None
    error_kind: str | None = None
    refused: str | None = None


READ = Picture(content_hash="ab")
DAMAGED = Picture(error="no picture")
GONE = Picture(error="does not exist (any more)")


def denied() -> Picture:
    return Picture(error="Access Denied.", refused="denied")


def busy() -> Picture:
    return Picture(error="Slow down.", refused="busy")


def gone() -> Picture:
    """One of a unit of which all are gone."""
    return Picture(error="does not exist (any more)", error_kind="missing", refused="missing")


def unit(name: int, *pictures: Picture) -> dict[str, object]:
    return {"unit": str(name), "pictures": len(pictures), **refusals(pictures)}


def test_units_with_refused_pictures_come_again() -> None:
    watch = StoreWatch(any_read=False)
    watch.look(unit(0, READ, denied()))
    watch.look(unit(1, READ, DAMAGED, GONE))
    watch.look(unit(2, denied(), denied()))
    assert watch.held == {"0", "2"}
    watch.check_any_read()
    assert is_held([READ, busy()])
    assert not is_held([READ, DAMAGED, GONE])


def test_a_category_that_may_not_be_read_does_not_stop_the_others() -> None:
    """Thousands of refused units in a row, as a plan sorted by category gives them."""
    watch = StoreWatch(any_read=False, works=lambda _: True)
    watch.look(unit(0, READ, READ))
    for number in range(1, 1000):
        watch.look(unit(number, denied(), denied()))
    watch.check_any_read()
    assert len(watch.held) == 999


def test_it_does_not_after_an_earlier_session_either() -> None:
    watch = StoreWatch(any_read=True, works=lambda _: True, witness="earlier")
    for number in range(100):
        watch.look(unit(number, denied()))
    watch.check_any_read()


@pytest.mark.parametrize("picture", [denied, gone])
def test_rights_that_are_taken_away_or_a_share_that_is_gone_end_the_run(
    picture: Callable[[], Picture],
) -> None:
    """What could be read before cannot be read any more: it is not these pictures' matter."""
    watch = StoreWatch(any_read=False, works=lambda _: False)
    watch.look(unit(0, READ, READ))
    for number in range(UNITS_BEFORE_STOP - 1):
        watch.look(unit(1 + number, picture(), picture()))
    with pytest.raises(StoreError):
        watch.look(unit(99, picture(), picture()))
    with pytest.raises(StoreError):
        settle([picture(), picture()], lambda: False)


def test_a_unit_of_which_all_pictures_are_gone_comes_again() -> None:
    pictures = [replace(gone(), refused=None) for _ in range(2)]
    hold_where_all_are_gone(pictures)
    assert is_held(pictures)
    settle(pictures, lambda: True)
    assert not is_held(pictures)
    assert [picture.error_kind for picture in pictures] == ["missing", "missing"]
    mixed = [replace(gone(), refused=None), READ]
    hold_where_all_are_gone(mixed)
    assert not is_held(mixed)


@pytest.mark.parametrize("picture", [denied, busy, gone])
def test_a_store_that_gives_nothing_ends_the_run(picture: Callable[[], Picture]) -> None:
    watch = StoreWatch(any_read=False)
    for number in range(UNITS_BEFORE_STOP - 1):
        watch.look(unit(number, picture(), picture()))
    with pytest.raises(StoreError, match=r"not one picture that could be read: .*run the same"):
        watch.look(unit(99, picture(), picture()))


def test_a_store_that_falls_silent_ends_the_run_though_much_was_read() -> None:
    watch = StoreWatch(any_read=True)
    for number in range(100):
        watch.look(unit(number, READ, busy()))
    for number in range(UNITS_BEFORE_STOP - 1):
        watch.look(unit(100 + number, busy(), busy()))
    with pytest.raises(StoreError, match="Slow down"):
        watch.look(unit(999, busy(), busy()))


def test_a_small_run_of_which_nothing_could_be_read_ends_before_the_last_try() -> None:
    watch = StoreWatch(any_read=False)
    watch.look(unit(0, denied(), DAMAGED))
    with pytest.raises(StoreError, match="Access Denied"):
        watch.check_any_read()


def test_after_the_last_try_a_refused_picture_is_an_error() -> None:
    pictures = [READ, denied(), busy(), DAMAGED]
    settle(pictures, lambda: False)
    assert not is_held(pictures)
    assert [picture.error is None for picture in pictures] == [True, False, False, False]


def test_what_is_denied_beside_pictures_that_are_still_given_is_an_error_at_once() -> None:
    pictures = [DAMAGED, READ, denied(), READ, denied()]
    asked: list[int] = []

    def is_given(place: int) -> bool:
        asked.append(place)
        return True

    settle_denied(pictures, is_given)
    assert not is_held(pictures)
    assert asked == [1]
    assert [picture.error is None for picture in pictures] == [False, True, False, True, False]
    settle_denied([READ, READ, DAMAGED], is_given)
    assert asked == [1]


@pytest.mark.parametrize(
    ("pictures", "is_given"),
    [
        ([READ, denied()], False),
        ([denied(), denied()], True),
        ([DAMAGED, denied()], True),
        ([READ, busy()], True),
        ([READ, denied(), busy()], True),
        ([gone(), gone()], True),
    ],
    ids=["rights gone", "all denied", "none read", "busy", "denied and busy", "all gone"],
)
def test_what_may_be_the_stores_matter_comes_again(pictures: list[Picture], is_given: bool) -> None:
    before = refusals(pictures)
    settle_denied(pictures, lambda _: is_given)
    assert is_held(pictures)
    assert refusals(pictures) == before


def test_a_unit_that_stays_silent_is_errors_only_where_the_store_gives_others() -> None:
    with pytest.raises(StoreError):
        settle([busy(), busy()], lambda: False)
    alone = [busy()]
    settle(alone, lambda: True)
    assert not is_held(alone)
    assert alone[0].error


def test_a_broken_archive_does_not_keep_the_others_waiting() -> None:
    """Any number of silent units, while another unit's pictures can be read whenever asked."""
    asked: list[str] = []

    def works(unit_name: str) -> bool:
        asked.append(unit_name)
        return True

    watch = StoreWatch(any_read=False, works=works)
    watch.look(unit(0, READ, GONE))
    for number in range(1, 10 * UNITS_BEFORE_STOP):
        watch.look(unit(number, busy(), busy()))
    assert asked == ["0"] * 9
    assert len(watch.held) == 10 * UNITS_BEFORE_STOP - 1
    earlier = StoreWatch(any_read=True, works=works, witness="earlier")
    for number in range(UNITS_BEFORE_STOP):
        earlier.look(unit(number, busy()))
    assert asked[-1] == "earlier"
    silent = StoreWatch(any_read=True, works=lambda _: False, witness="earlier")
    for number in range(UNITS_BEFORE_STOP - 1):
        silent.look(unit(number, busy()))
    with pytest.raises(StoreError):
        silent.look(unit(99, busy()))


def test_refusals_before_anything_was_read_end_the_run_only_where_nothing_else_answers() -> None:
    found = StoreWatch(any_read=False, works=lambda _: True, find=lambda: "further on")
    for number in range(100):
        found.look(unit(number, denied(), denied()))
    found.check_any_read()
    assert found.witness == "further on"
    assert len(found.held) == 100
    small = StoreWatch(any_read=False, find=lambda: "further on")
    small.look(unit(0, denied()))
    small.check_any_read()
    assert small.witness == "further on"


def test_a_run_that_goes_on_without_a_witness_looks_for_one_before_the_last_try() -> None:
    """What was finished before need not have been read: then nothing could be told of silence."""
    watch = StoreWatch(any_read=True, find=lambda: "further on")
    watch.look(unit(0, busy(), busy()))
    watch.check_any_read()
    assert watch.witness == "further on"
    StoreWatch(any_read=False).check_any_read()
