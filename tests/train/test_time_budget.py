"""--until: the next 06:00, whatever midnight and summer time do."""

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.errors import ConfigError
from nfbmr.train.time_budget import parse_until


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def hours_from(now: str, until: str) -> float:
    start = datetime.fromisoformat(now).timestamp()
    return (parse_until(until, start) - start) / 3600


@pytest.mark.parametrize(
    ("now", "until", "hours"),
    [
        ("2026-11-24T23:00", "06:00", 7),
        ("2026-11-24T00:00", "06:00", 6),
        ("2026-11-24T05:59", "6:00", 1 / 60),
        ("2026-11-24T13:00", "06:00", 17),
        ("2026-11-24T12:00", "06:00", 18),
        ("2026-11-24T20:30", "20:00", -0.5),
        ("2026-11-24T23:59", "00:00", 1 / 60),
        ("2026-12-31T22:00", "06:00", 8),
        ("2026-03-28T23:00", "06:00", 6),  # Summer time begins in that night,
        ("2026-10-24T23:00", "06:00", 8),  # and ends in that one.
        ("2026-11-24T23:00", "2026-11-25T06:00", 7),
        ("2026-11-24T23:00", "2026-11-25T06:00+00:00", 8),
    ],
)
def test_the_time_that_is_meant(now: str, until: str, hours: float) -> None:
    assert hours_from(now, until) == pytest.approx(hours)


@pytest.mark.parametrize(
    ("now", "until", "minutes"),
    [
        ("2026-11-24T06:00", "06:00", 0),
        ("2026-11-24T06:02", "06:00", 2),
        ("2026-11-24T11:59", "06:00", 359),
        ("2026-11-24T00:30", "23:00", 90),  # Yesterday's.
        ("2026-03-29T04:00", "01:30", 90),  # Summer time began in between,
        ("2026-10-25T04:00", "01:30", 210),  # and ended.
    ],
)
def test_a_command_that_is_started_again_after_its_time_begins_nothing(
    now: str, until: str, minutes: float
) -> None:
    """Its pod was lost at 05:55: the next morning's 06:00 would mean fits all day."""
    assert hours_from(now, until) == pytest.approx(-minutes / 60)


@given(now=st.integers(1_700_000_000, 2_000_000_000), minute=st.integers(0, 24 * 60 - 1))
def test_it_is_within_a_day_of_now_and_shows_the_time(now: int, minute: int) -> None:
    text = f"{minute // 60:02d}:{minute % 60:02d}"
    moment = parse_until(text, now)
    assert -6 < (moment - now) / 3600 <= 19, "18 hours, and one where the clock is put back"
    shown = datetime.fromtimestamp(moment)
    assert f"{shown:%H:%M}" == text or shown.hour == 3, "02:30 is missing when summer begins"


@pytest.mark.parametrize("until", ["", "6", "25:00", "12:60", "soon", "06:00:00", "-1:00"])
def test_anything_else_is_an_error_with_an_example(until: str) -> None:
    with pytest.raises(ConfigError, match=r"as in 06:00"):
        hours_from("2026-11-24T23:00", until)


def test_a_date_that_has_passed_is_an_error() -> None:
    with pytest.raises(ConfigError, match="has passed: it is 2026-11-24 23:00"):
        hours_from("2026-11-24T23:00", "2026-11-24T06:00")
