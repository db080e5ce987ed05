"""Rows of scores for people: the same values, but no map in memory as numbers of Python."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from nfbmr.score.dataset import StoredMap, rows_of


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.list_(pa.float32(), 6)])
def test_rows_have_their_own_maps_and_take_little_memory(kind: pa.DataType) -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 6)
    maps = [list(values[0]), None, list(values[2]), list(values[3])]
    column = pa.chunked_array([pa.array(maps[:2], kind), pa.array(maps[2:], kind)])
    table = pa.table({"score": [1.0, None, 3.0, 4.0], "anomaly_map": column})
    rows = rows_of(table)
    assert [row["score"] for row in rows] == [1.0, None, 3.0, 4.0]
    assert rows[1]["anomaly_map"] is None
    for number in (0, 2, 3):
        stored = rows[number]["anomaly_map"]
        assert isinstance(stored, StoredMap)
        assert sys.getsizeof(stored) < 100
        found = np.asarray(stored, dtype=np.float32)
        assert found.dtype == np.float32
        assert np.array_equal(found, values[number])
