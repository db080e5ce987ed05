"""Rows carry what the source said of a picture."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from nfbmr.score.rows import RowMaker
from nfbmr.score.schema import score_schema
from nfbmr.score.unit_row import UnitPicture, pictures_from_json, pictures_to_json

WHEN = datetime.datetime(2026, 11, 24, 8, 15, 0, 250_000, tzinfo=datetime.UTC)


def test_the_time_of_a_picture_travels_into_its_row() -> None:
    known = UnitPicture("a.png", "m.csv", "a.png", captured_at=WHEN.isoformat())
    unknown = UnitPicture("b.png", "m.csv", "b.png")
    for picture in (known, unknown):
        picture.fail("cannot be read", "source")
    maker = RowMaker({}, "run", score_schema({4}))
    rows = maker.table("bottle", pictures_from_json(pictures_to_json([known, unknown])), {})
    assert rows.schema.field("captured_at").type == pa.timestamp("ms", tz="UTC")
    assert rows.column("captured_at").to_pylist() == [WHEN, None]


@pytest.mark.parametrize(("map_type", "largest"), [("float16", 65504.0), ("float32", 1e6)])
def test_a_map_beyond_half_precision_is_cut_off_there_alone(map_type: str, largest: float) -> None:
    maker = RowMaker({}, "run", score_schema({3}, map_type))
    maps = [np.array([0.5, 65504, 1e6], dtype=np.float32)]
    table = maker.table("c", [UnitPicture("a", "b", "c")], {"anomaly_map": maps, "score": [1e6]})
    assert table.column("anomaly_map").to_pylist() == [[0.5, 65504.0, largest]]
    assert table.column("score").to_pylist() == [1e6]
