"""Units are committed whole; the columns are the interface."""

from pathlib import Path

import pyarrow as pa
import pytest

from nfbmr.errors import OutputError
from nfbmr.score import plan_files, units
from nfbmr.score.schema import missing_map, score_schema
from tests.test_store_faults import s3_error


def test_a_unit_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="finished unit"):
        units.read_unit(str(tmp_path), "gone")


@pytest.mark.parametrize(
    "error", [s3_error("400", 400), s3_error("SlowDown", 503), s3_error("AccessDenied", 403)]
)
def test_a_store_that_fails_says_nothing_of_damage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by a fault test: people were told to remove a whole plan, and finished units."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(units, "retried", fail)
    monkeypatch.setattr(units.storage, "read", fail)
    for read in (units.read_unit, units.read_failed):
        with pytest.raises(type(error)):
            read(str(tmp_path), "u")
    monkeypatch.setattr(plan_files, "retried", fail)
    plan_files.row_group.cache_clear()
    with pytest.raises(type(error)):
        plan_files.row_group(str(tmp_path), "0" * 32, 0)


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
