"""The time that is left, told from when units were written."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nfbmr.score.status
from nfbmr.score.status import run_status, seconds_left
from nfbmr.settings import RunSettings
from tests.score.committed_run import committed, finished


@given(
    gaps=st.lists(st.floats(0.5, 3.0), min_size=5, max_size=50),
    pause=st.floats(3600, 1e6),
    left=st.integers(0, 10_000),
)
def test_time_left_follows_the_pace_since_the_last_pause(
    gaps: list[float], pause: float, left: int
) -> None:
    before = [0.0, 500.0, 501.0]
    session = list(itertools.accumulate([before[-1] + pause, *gaps]))
    pace = sum(gaps) / len(gaps)
    assert seconds_left([*before, *session], left) == pytest.approx(left * pace, rel=1e-3)
    assert seconds_left(list(reversed([*before, *session])), left) == pytest.approx(
        left * pace, rel=1e-3
    )


@pytest.mark.parametrize("stamps", [[], [5.0], [5.0, 5.0]])
def test_time_left_cannot_be_told_from_too_little(stamps: list[float]) -> None:
    assert seconds_left(stamps, 10) is None


def test_status_counts_rows_until_the_run_is_finished_and_then_too(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, schema = committed(root, [10])
    half = run_status(root)
    assert (half.finished, half.pictures, half.done, half.failed, half.left) == (
        False,
        10,
        10,
        4,
        0,
    )
    assert half.failed_is_exact
    monkeypatch.setattr(nfbmr.score.status, "UNITS_ASKED", len(plan.units) - 1)
    sampled = run_status(root)
    assert not sampled.failed_is_exact
    assert 0 < sampled.failed <= 10
    finished(root, plan, schema, RunSettings())
    status = run_status(root)
    assert (status.finished, status.done, status.failed, status.left) == (True, 10, 4, 0)
    assert status.seconds_left == 0.0
