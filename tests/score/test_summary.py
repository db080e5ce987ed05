"""A finished run says when more is lost than it may lose."""

import json
from pathlib import Path

import pytest

from nfbmr.errors import FailureBudgetError
from nfbmr.score.plan_files import unit_uris
from nfbmr.score.summary import ScoringSummary
from nfbmr.score.units import write_unit
from nfbmr.settings import RunSettings
from tests.score.committed_run import committed, finished, rows

LENIENT = RunSettings(failure_budget=1.0)
AGAIN = "--retry-failed scores them again"
ANEW = "score them in a run of their own"


def damaged_run(output: str, sources: list[str]) -> ScoringSummary:
    """A run whose first rows say of these sources that they are damaged."""
    plan, schema = committed(output, [30], unit_size=30)
    (unit,) = plan.units
    table = rows(unit_uris(output, plan.run_id, unit), unit.category, schema).to_pylist()
    for row, source in zip(table, sources, strict=False):
        row |= {"archive": source, "status": "error", "error": "cut", "error_kind": "listing"}
    write_unit(output, unit.name, schema.empty_table().from_pylist(table, schema))
    return finished(output, plan, schema, LENIENT)


def test_a_damaged_source_is_refused_whatever_the_failure_budget(tmp_path: Path) -> None:
    summary = damaged_run(str(tmp_path), ["a.tar", "b.csv", "b.csv"])
    assert summary.damaged_sources == {"a.tar": 1, "b.csv": 2}
    with pytest.raises(FailureBudgetError, match=r"Damaged sources: 2 \(a\.tar, b\.csv\)") as error:
        summary.check_failures(LENIENT)
    assert error.value.exit_code == 8
    assert "status = 'error'" in str(error.value)
    assert "pictures have no score" not in str(error.value)
    with pytest.raises(FailureBudgetError, match=r"run\.damaged_sources = 1"):
        summary.check_failures(RunSettings(failure_budget=1.0, damaged_sources=1))
    summary.check_failures(RunSettings(failure_budget=1.0, damaged_sources=2))
    # The same command on a finished run, and one that an older version finished.
    again = ScoringSummary.of_earlier(json.loads((tmp_path / "_summary.json").read_text()))
    with pytest.raises(FailureBudgetError, match=r"Damaged sources: 2 \(a\.tar"):
        again.check_failures(LENIENT)
    old = {k: v for k, v in summary.as_dict().items() if k != "damaged_sources"}
    with pytest.raises(FailureBudgetError, match="Damaged sources: 1,"):
        ScoringSummary.of_earlier(old).check_failures(LENIENT)


def test_of_many_damaged_sources_the_first_are_named(tmp_path: Path) -> None:
    summary = damaged_run(str(tmp_path), [f"{number}.tar" for number in range(9)])
    with pytest.raises(FailureBudgetError, match=r"9 \(0\.tar, .*4\.tar, 4 more\)"):
        summary.check_failures(LENIENT)


def test_single_pictures_count_for_the_budget_alone(tmp_path: Path) -> None:
    plan, schema = committed(str(tmp_path))
    summary = finished(str(tmp_path), plan, schema, LENIENT)
    summary.check_failures(LENIENT)
    with pytest.raises(
        FailureBudgetError, match=r"^3 of 9 pictures have no score \(unsupported 3\)"
    ):
        summary.check_failures(RunSettings())


@pytest.mark.parametrize(
    ("kinds", "helps", "does_not"),
    [
        ({"busy": 2, "killed": 1}, AGAIN, ANEW),
        ({"no_model": 3}, f"kind no_model stay errors in this run.*{ANEW}", AGAIN),
        ({"truncated": 2, "denied": 1}, f"{AGAIN}.*kind truncated stay.*{ANEW}", "denied stay"),
    ],
)
def test_the_remedy_is_that_of_the_kind(kinds: dict[str, int], helps: str, does_not: str) -> None:
    summary = ScoringSummary.of_earlier(
        {
            **{"output": "/scores", "run_id": "r", "pictures": 10, "failed": 3},
            **{"failed_by_kind": kinds, "models": {}, "drift": {}, "elapsed_s": 1.0},
            **{"scored_now": 10, "fetched_bytes": 1, "forward": None, "damaged_sources": {}},
        }
    )
    summary.check_failures(RunSettings(failure_budget=0.3))
    with pytest.raises(FailureBudgetError, match=helps) as caught:
        summary.check_failures(RunSettings(failure_budget=0.2))
    assert does_not not in str(caught.value)
