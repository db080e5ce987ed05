"""Rows carry what the source said of a picture."""

import datetime

import pyarrow as pa

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
