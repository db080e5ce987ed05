"""The time that is left, told from when units were written."""

import itertools
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.score
import nfbmr.score.status
from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.score.plan_files import LISTING_FOLDER, PLAN_FOLDER
from nfbmr.score.status import (
    begin_session,
    forward_of,
    run_status,
    seconds_left,
    session_began,
)
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


@given(
    actors=st.integers(2, 16),
    every=st.floats(20.0, 300.0),
    rounds=st.integers(3, 20),
    left=st.integers(1, 1000),
)
def test_actors_in_step_are_no_pauses(actors: int, every: float, rounds: int, left: int) -> None:
    """Found in review: of four that commit together every 75 s, a gap counted as half a second."""
    began = 1e6
    stamps = [began + every * (r + 1) + a * 0.1 for r in range(rounds) for a in range(actors)]
    pace = every / actors
    assert seconds_left(stamps, left, began) == pytest.approx(left * pace, rel=0.7)
    yesterday = [began - 86400 + second for second in range(5)]
    assert seconds_left([*yesterday, *stamps], left, began) == seconds_left(stamps, left, began)


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
    finished(root, plan, schema, RunSettings())
    status = run_status(root)
    assert (status.finished, status.done, status.failed, status.left) == (True, 10, 4, 0)
    assert status.seconds_left == 0.0


def test_errors_of_very_many_units_are_reckoned_from_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(str(tmp_path), [600])
    assert run_status(str(tmp_path)).failed == 200
    monkeypatch.setattr(nfbmr.score.status, "UNITS_ASKED", 50)
    sampled = run_status(str(tmp_path))
    assert not sampled.failed_is_exact
    assert sampled.failed == pytest.approx(200, rel=0.05)


def test_a_run_that_is_being_listed_says_so(root: str) -> None:
    storage.write_atomically(storage.join(root, PLAN_FOLDER, LISTING_FOLDER, "1.listing"), b"x")
    with pytest.raises(OutputError, match="is not planned yet: its sources are being listed"):
        run_status(root)


@pytest.mark.parametrize("mark", [None, b"", b"{", b"[1]", b'{"forward": 1}'])
def test_a_session_that_does_not_say_how_it_computes_is_none(mark: bytes | None) -> None:
    assert forward_of(mark) is None


def test_the_clock_of_the_run_begins_with_its_session(root: str) -> None:
    assert session_began(root) is None
    committed(root, [9])
    before = run_status(root)
    assert begin_session(root, "float32") is None
    assert begin_session(root, "compiled") == "float32"
    began = session_began(root)
    assert began is not None
    assert began == pytest.approx(time.time(), abs=60)
    assert run_status(root).done == before.done == 9


def test_the_command_says_how_far_a_run_is_in_words_and_for_programs(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    committed(root, [10])
    assert jobs.score.main(["--output", root, "--status"]) == 0
    said = capsys.readouterr().out
    for label, value in (("pictures", 10), ("done", 10), ("of them with an error", 4), ("left", 0)):
        assert re.search(rf"^{label} +{value}\b", said, re.MULTILINE), said
    assert said.startswith("unfinished")
    assert jobs.score.main(["--output", root, "--status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["pictures"], status["failed"], status["finished"]) == (10, 4, False)
