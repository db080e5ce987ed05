"""--until: the next 06:00, whatever midnight and summer time do."""

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

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
        ("2026-11-24T06:00", "06:00", 24),
        ("2026-11-24T06:01", "06:00", 24 - 1 / 60),
        ("2026-11-24T23:59", "00:00", 1 / 60),
        ("2026-12-31T22:00", "06:00", 8),
        ("2026-03-28T23:00", "06:00", 6),  # Summer time begins in that night,
        ("2026-10-24T23:00", "06:00", 8),  # and ends in that one.
        ("2026-11-24T23:00", "2026-11-25T06:00", 7),
        ("2026-11-24T23:00", "2026-11-25T06:00+00:00", 8),
    ],
)
def test_the_next_time_that_the_clock_shows_it(now: str, until: str, hours: float) -> None:
    assert hours_from(now, until) == pytest.approx(hours)


@pytest.mark.parametrize("until", ["", "6", "25:00", "12:60", "soon", "06:00:00", "-1:00"])
def test_anything_else_is_an_error_with_an_example(until: str) -> None:
    with pytest.raises(ConfigError, match=r"as in 06:00"):
        hours_from("2026-11-24T23:00", until)


def test_a_date_that_has_passed_is_an_error() -> None:
    with pytest.raises(ConfigError, match="has passed: it is 2026-11-24 23:00"):
        hours_from("2026-11-24T23:00", "2026-11-24T06:00")
