"""Replacing rows of a finished data set: the new ones in the old places, nothing else changes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nfbmr.score import merge
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.retry import replace_rows
from nfbmr.settings import OutputSettings, RunSettings
from tests.score.committed_run import committed, finished, rows


@pytest.mark.parametrize("partitioned", [False, True])
def test_rows_are_replaced_in_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitioned: bool
) -> None:
    output = str(tmp_path)
    plan, schema = committed(output, [14, 6], ["bottle", "nut"])
    arranged = OutputSettings(rows_per_file=8, partition_by_category=partitioned)
    monkeypatch.setattr(merge, "ROW_GROUP_ROWS", 3)
    finished(output, plan, schema, RunSettings(output=arranged))
    before = read_scores(output)
    marker = read_marker(output)
    assert marker is not None
    files = [tmp_path / "data" / name for name in marker["files"]]
    groups, stamps = list(map(group_sizes, files)), list(map(stamp, files))
    mended = ["x::bottle/000000", "x::bottle/000003", "x::nut/000003"]
    new = pa.concat_tables(as_scored(uri, schema) for uri in reversed(mended))

    def new_of(wanted: pa.ChunkedArray) -> pa.Table | None:
        held = pc.is_in(new.column("image_uri"), value_set=wanted.cast(pa.string()))
        return new if pc.any(held).as_py() else None

    replace_rows(output, marker["files"], new_of)
    after = read_scores(output)
    assert after.column("image_uri") == before.column("image_uri")
    changed = pc.is_in(after.column("image_uri"), value_set=pa.array(mended))
    assert after.filter(pc.invert(changed)).equals(before.filter(pc.invert(changed)))
    assert after.filter(changed).column("status").to_pylist() == ["ok"] * 3
    assert after.filter(changed).column("score").to_pylist() == [0.5] * 3
    assert list(map(group_sizes, files)) == groups
    rewritten = [before != after for before, after in zip(stamps, map(stamp, files), strict=True)]
    assert rewritten == [bool(set(mended) & set(uris(file))) for file in files]
    assert rewritten.count(False) > 0
    assert b"nfbmr" in pq.read_schema(files[0]).metadata


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


def uris(path: Path) -> list[str]:
    names: list[str] = pq.ParquetFile(path).read(columns=["image_uri"]).column(0).to_pylist()
    return names


def group_sizes(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def as_scored(uri: str, schema: pa.Schema) -> pa.Table:
    """The row of a picture that failed, as if it had been scored."""
    category = uri.removeprefix("x::").partition("/")[0]
    table = rows(["x::bottle/000001"], category, schema)
    index = table.schema.get_field_index("image_uri")
    return table.set_column(index, schema.field(index), pa.array([uri]))
