"""Times of a manifest, in whatever form they are written."""

import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from nfbmr.data.table_columns import as_times
from nfbmr.errors import DataError
from tests.data.tables import WHEN

UTC = datetime.UTC
SECONDS = int(WHEN.timestamp())
NEVER_MS = 253_402_300_799_000


@pytest.mark.parametrize(
    "values",
    [
        ["2026-11-24T08:15:00.25Z", None],
        ["2026-11-24T08:15:00.250000+00:00", ""],
        ["2026-11-24 08:15:00.250", None],
        pa.array([WHEN, None], pa.timestamp("us", tz="UTC")),
        pa.array([WHEN.replace(tzinfo=None), None], pa.timestamp("ns")),
        [int(WHEN.timestamp() * 1000), None],
        [WHEN.timestamp(), None],
    ],
)
def test_times_of_many_kinds(values: list[object]) -> None:
    times = as_times("m.csv", "t", pa.chunked_array([values]))
    assert times.to_pylist() == [WHEN, None]


def test_times_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.csv: column 't' does not hold times"):
        as_times("m.csv", "t", pa.chunked_array([["yesterday"]]))


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_unix_times_of_any_unit(unit: int, kind: pa.DataType) -> None:
    moment = SECONDS * unit if pa.types.is_integer(kind) else float(SECONDS * unit)
    column = pa.chunked_array([pa.array([moment, None], kind)])
    assert as_times("m.csv", "t", column).to_pylist() == [WHEN.replace(microsecond=0), None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([float("nan"), float("inf"), SECONDS]),
        pa.array([2**63 - 1, -(2**63), SECONDS * 10**9]),
        pa.array([1e20, -1e20, SECONDS * 1e9]),
        pa.array([2**62, -(2**62), SECONDS * 1000], pa.timestamp("ms")),
        pa.array([2**60, -(2**60), SECONDS * 10**6], pa.timestamp("us", tz="UTC")),
    ],
    ids=["no number", "integers", "floats", "milliseconds", "microseconds"],
)
def test_what_is_no_moment_is_null_and_ends_no_run(column: pa.Array) -> None:
    """Found in review: a time beyond Python's years ended every later try of the run."""
    times = as_times("m.csv", "t", pa.chunked_array([column])).to_pylist()
    assert times == [None, None, WHEN.replace(microsecond=0)]


@pytest.mark.parametrize("odd", [-(2**63), 2**63 - 1, NEVER_MS])
@pytest.mark.parametrize("unit", [1, 1000])
def test_one_odd_value_changes_no_other(odd: int, unit: int) -> None:
    """Found in review: the largest of the column told the unit of all."""
    column = pa.chunked_array([pa.array([SECONDS * unit, (SECONDS + 60) * unit, odd])])
    times = as_times("m.csv", "t", column).to_pylist()
    assert [time.timestamp() for time in times[:2]] == [SECONDS, SECONDS + 60]
    assert times[2] is None or times[2].year == 9999
