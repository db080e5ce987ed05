"""Units become one data set with a marker; a reader never sees half a run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest

from nfbmr.errors import OutputError
from nfbmr.score import units
from nfbmr.score.schema import missing_map, score_schema

SCHEMA = pa.schema([("image_uri", pa.string()), ("score", pa.float64())])


def unit(name: str) -> pa.Table:
    return pa.table({"image_uri": [f"{name}-{i}" for i in range(3)], "score": [1.0, 2.0, None]})


def test_units_are_merged_in_order_and_dropped(tmp_path: Path) -> None:
    output = str(tmp_path)
    names = ["c", "a", "b"]
    for name in names:
        units.write_unit(output, name, unit(name))
    assert units.finished_units(output) == {"a", "b", "c"}
    with pytest.raises(OutputError, match="no finished scoring run"):
        units.read_scores(output)
    units.merge_units(output, names, SCHEMA, {"pictures": 9})
    assert units.read_marker(output) == {"pictures": 9}
    table = units.read_scores(output)
    assert table.column("image_uri").to_pylist() == [f"{n}-{i}" for n in names for i in range(3)]
    assert {p.name for p in tmp_path.iterdir()} == {"part-00000.parquet", "_SUCCESS"}
    assert b"nfbmr" in pyarrow.dataset.dataset(output).schema.metadata


def test_a_merge_that_was_cut_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The units stay until the marker is there, so nothing is lost between any two steps."""
    output = str(tmp_path)
    for name in ("a", "b"):
        units.write_unit(output, name, unit(name))

    class CutOffError(Exception):
        pass

    def cut_off(*_: object) -> None:
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(units.storage, "remove_tree", cut_off)
        with pytest.raises(CutOffError):
            units.merge_units(output, ["a", "b"], SCHEMA, {})
    units.merge_units(output, ["a", "b"], SCHEMA, {})
    assert units.read_scores(output).num_rows == 6


def test_several_files_when_rows_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MAX_ROWS_PER_FILE", 6)
    names = [f"u{i}" for i in range(5)]
    for name in names:
        units.write_unit(str(tmp_path), name, unit(name))
    units.merge_units(str(tmp_path), names, SCHEMA, {})
    assert len(list(tmp_path.glob("part-*.parquet"))) == 3
    assert units.read_scores(str(tmp_path)).num_rows == 15


def test_a_unit_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="finished unit"):
        units.read_unit(str(tmp_path), "gone")


def test_columns_are_the_interface() -> None:
    names = (
        "image_uri archive member category status error score p_value is_anomalous threshold "
        "anomaly_map map_height map_width peak_x peak_y image_height image_width content_hash "
        "model_name model_version run_id scored_at"
    )
    schema = score_schema({16})
    assert set(names.split()) <= set(schema.names)
    assert schema.field("anomaly_map").type == pa.list_(pa.float16(), 16)
    assert all(field.metadata[b"description"] for field in schema)


@pytest.mark.parametrize("sizes", [{16}, {16, 4}, set()])
def test_rows_without_a_map_can_be_read_back(sizes: set[int], tmp_path: Path) -> None:
    schema = score_schema(sizes)
    row = dict.fromkeys(schema.names)
    row |= {"image_uri": "a", "category": "b", "status": "error", "run_id": "r", "scored_at": 0}
    row["anomaly_map"] = missing_map(schema)
    table = pa.Table.from_pylist([row], schema=schema)
    units.write_unit(str(tmp_path), "u", table)
    assert units.read_unit(str(tmp_path), "u").num_rows == 1
