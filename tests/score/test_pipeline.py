"""Where pictures are decoded and how many actors there are changes no row; who is a witness."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from nfbmr.model.precision import REFERENCE
from nfbmr.progress import Progress
from nfbmr.score import pipeline
from nfbmr.score.dataset import read_scores
from nfbmr.score.pipeline import _PicturesByUnit
from nfbmr.score.plan import Plan
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.units import read_unit, write_unit
from tests.conftest import Trained
from tests.score.committed_run import committed


@pytest.mark.integration
def test_decoding_in_tasks_and_a_pool_that_may_grow_give_the_same_rows(
    trained: Trained, tmp_path: Path
) -> None:
    request = ScoringRequest((trained.factory.archive,), str(tmp_path / "actors"))
    other = replace(request, output=str(tmp_path / "tasks"))
    settings = replace(trained.config.run, decode="tasks", actors_min=1, forward=REFERENCE)
    quiet = Progress(quiet=True)
    here = score(request, trained.registry, trained.config.run, quiet)
    there = score(other, trained.registry, settings, quiet)
    assert (here.pictures, here.failed) == (there.pictures, there.failed) == (43, 3)
    columns = ["image_uri", "category", "status", "error", "content_hash", "image_height"]
    order = [("image_uri", "ascending")]
    one, two = (read_scores(run.output).sort_by(order) for run in (here, there))
    assert one.select(columns).equals(two.select(columns))
    scores = [table.column("score").drop_null().to_pylist() for table in (one, two)]
    assert len(scores[0]) == 40
    assert scores[0] == pytest.approx(scores[1], rel=0.02)
    assert here.forward is not None
    assert here.forward["score_share"] < 0.02
    assert there.forward is None
    for summary in (here, there):
        assert all(seconds > 0 for seconds in summary.seconds_by_stage.values())
        assert all(seconds > 0 for seconds in summary.cpu_seconds_by_stage.values())


def with_a_hash(output: str, unit: str) -> None:
    """Make a unit one whose first picture was read; those of ``committed`` have no hashes."""
    table = read_unit(output, unit)
    index = table.schema.get_field_index("content_hash")
    hashes = pa.array(["ab", *[None] * (len(table) - 1)], table.schema.field(index).type)
    write_unit(output, unit, table.set_column(index, table.schema.field(index), hashes))


def readable(plan: Plan, output: str) -> str | None:
    return _PicturesByUnit(plan, output).readable({unit.name for unit in plan.units})


def test_a_witness_is_found_behind_many_units_that_were_not_read(tmp_path: Path) -> None:
    """None of them had a model: with the first few alone, a resumed run had no witness."""
    output = str(tmp_path)
    plan, _ = committed(output, [900, 9, 6], ["bottle", "nut", "screw"])
    plan = replace(plan, models={"nut": plan.models["nut"]}, model_errors={"bottle": "none"})
    assert readable(plan, output) is None
    last = [unit.name for unit in plan.units if unit.category == "nut"][-1]
    with_a_hash(output, last)
    assert readable(plan, output) == last


def test_a_witness_is_found_behind_categories_that_were_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    plan, _ = committed(output, [60, 60, 6], ["bottle", "nut", "screw"])
    monkeypatch.setattr(pipeline, "_UNITS_ASKED", 6)
    screw = next(unit.name for unit in plan.units if unit.category == "screw")
    with_a_hash(output, screw)
    assert readable(plan, output) == screw


def test_the_search_for_a_witness_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    plan, _ = committed(output, [60])
    monkeypatch.setattr(pipeline, "_UNITS_ASKED", 5)
    asked: list[str] = []

    def reading(place: str, unit: str) -> pa.Table:
        asked.append(unit)
        return read_unit(place, unit)

    monkeypatch.setattr(pipeline, "read_unit", reading)
    assert readable(plan, output) is None
    assert len(asked) == len(set(asked)) == 5
