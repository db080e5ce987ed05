"""Units become one data set with a marker; a reader never sees half a run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest

from nfbmr.errors import OutputError
from nfbmr.score import merge
from nfbmr.score.merge import merge_units, set_marker
from nfbmr.score.plan import Plan, PlannedPicture, cut_units, pictures_table
from nfbmr.score.plan_files import save_plan, unit_uris
from nfbmr.score.units import finished_units, read_marker, read_scores, write_unit

SCHEMA = pa.schema([("image_uri", pa.string()), ("status", pa.string())])


def committed(output: str, pictures: int = 9, run_id: str = "r") -> Plan:
    """A plan whose units are all there; every third picture is an error."""
    ordered = pictures_table(
        PlannedPicture(f"x::{i:03d}", "x", str(i), 0, 1, "v", "bottle") for i in range(pictures)
    )
    plan = Plan(run_id, {}, {}, {}, cut_units(ordered, 3))
    save_plan(plan, ordered, output)
    for unit in plan.units:
        uris = unit_uris(output, run_id, unit)
        table = pa.table({"image_uri": uris, "status": ["error", "ok", "ok"][: len(uris)]})
        write_unit(output, unit.name, table)
    return plan


def test_units_are_merged_in_order_and_dropped(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan = committed(output)
    assert finished_units(output) == {unit.name for unit in plan.units}
    with pytest.raises(OutputError, match="no finished scoring run"):
        read_scores(output)
    assert merge_units(plan, output, SCHEMA, {"run": "r"}) == 3
    set_marker(output, {"pictures": 9})
    assert read_marker(output) == {"pictures": 9}
    assert read_scores(output).column("image_uri").to_pylist() == [f"x::{i:03d}" for i in range(9)]
    assert {p.name for p in tmp_path.iterdir()} == {"part-00000.parquet", "_SUCCESS", "_plan"}
    metadata = pyarrow.dataset.dataset(output).schema.metadata
    assert metadata[b"nfbmr"] == b'{"run": "r"}'


@pytest.mark.parametrize("rows", [1, 4, 6, 100])
def test_files_of_any_size_hold_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    plan = committed(str(tmp_path), 20)
    monkeypatch.setattr(merge, "MAX_ROWS_PER_FILE", rows)
    merge_units(plan, str(tmp_path), SCHEMA, {})
    set_marker(str(tmp_path), {})
    table = read_scores(str(tmp_path))
    assert table.column("image_uri").to_pylist() == [f"x::{i:03d}" for i in range(20)]
    files = len(list(tmp_path.glob("part-*.parquet")))
    assert files == -(-20 // (max(1, -(-rows // 3)) * 3))


def test_a_merge_that_was_cut_off_is_done_again_even_with_other_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The units stay until the marker is there, so nothing is lost between any two steps."""
    output = str(tmp_path)
    plan = committed(output, 20)
    with monkeypatch.context() as patch:
        patch.setattr(merge, "MAX_ROWS_PER_FILE", 1)
        merge_units(plan, output, SCHEMA, {})
    assert len(list(tmp_path.glob("part-*.parquet"))) == 7
    merge_units(plan, output, SCHEMA, {})
    set_marker(output, {})
    assert len(list(tmp_path.glob("part-*.parquet"))) == 1
    assert read_scores(output).num_rows == 20


def test_a_part_that_cannot_be_finished_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan = committed(output)
    (tmp_path / "_units" / f"{plan.units[-1].name}.parquet").unlink()
    with pytest.raises(OutputError, match="finished unit"):
        merge_units(plan, output, SCHEMA, {})
    assert list(tmp_path.glob("*part-*")) == []


def test_other_rows_than_planned_are_not_accepted(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan = committed(output)
    write_unit(output, plan.units[1].name, pa.table({"image_uri": ["y"], "status": ["ok"]}))
    with pytest.raises(OutputError, match="does not hold the pictures of the plan"):
        merge_units(plan, output, SCHEMA, {})
