"""Parquet files with pictures: each row is read back, and what is wrong is said."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfbmr.data import parquet_archive
from nfbmr.data.archives import list_archive, lister_of, read_entry
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.data.table_columns import TableColumns
from nfbmr.errors import DamagedTableError, DataError
from tests.data.tables import WHEN, contents, listed


def test_pictures_in_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table(
        {
            "jpeg": contents(25),
            "path": [f"line/{n}.jpg" for n in range(25)],
            "category": ["bottle"] * 24 + [""],
            "timestamp": [WHEN] * 25,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    listing = listed(tmp_path / "a.parquet")
    assert [entry.member for entry in listing.entries] == table.column("path").to_pylist()
    assert [read_entry(entry) for entry in listing.entries] == contents(25)
    assert listing.table.column("category").to_pylist() == ["bottle"] * 24 + [None]
    assert listing.table.column("captured_at").to_pylist() == [WHEN] * 25
    assert listing.image_uris()[3].as_py() == f"{tmp_path}/a.parquet::line/3.jpg"


def test_structs_of_bytes_and_path_and_rows_without_a_name(tmp_path: Path) -> None:
    image = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(contents(4))]
    table = pa.table({"image": image, "label": [3, 3, 5, 5]})
    pq.write_table(table, tmp_path / "hub.parquet")
    listing = listed(tmp_path / "hub.parquet", category="label")
    assert [entry.member for entry in listing.entries] == [f"{n}.png" for n in range(4)]
    assert [read_entry(entry) for entry in listing.entries] == contents(4)
    assert listing.table.column("category").to_pylist() == ["3", "3", "5", "5"]
    pq.write_table(pa.table({"image": contents(3)}), tmp_path / "bare.parquet")
    assert [entry.member for entry in listed(tmp_path / "bare.parquet").entries] == ["0", "1", "2"]
    same = pa.table({"image": contents(2), "name": ["a.png", "a.png"]})
    pq.write_table(same, tmp_path / "same.parquet")
    entries = listed(tmp_path / "same.parquet").entries
    assert [entry.member for entry in entries] == ["a.png#0", "a.png#1"]


def test_a_null_picture_and_a_changed_file_are_errors_of_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"one", None]}), path)
    one, none = listed(path).entries
    assert read_entry(one) == b"one"
    with pytest.raises(DataError, match="has no bytes in column 'image'"):
        read_entry(none)
    parquet_archive._opened.clear()
    pq.write_table(pa.table({"image": [b"other", None]}), path)
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(one)


def test_a_worker_fetches_its_row_group_and_not_the_file(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 pictures of 100 kB in 4 row groups: a footer or two and one request per group."""
    uri = f"{s3_bucket}/a.parquet"
    pictures = [bytes([n]) * 100_000 for n in range(40)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": pictures}), sink, row_group_size=10, compression="none")
    fsspec.filesystem("s3").pipe_file(uri, sink.getvalue().to_pybytes())
    entries = listed(uri).entries
    fetched: list[int] = []
    fetch = parquet_archive.RangeFile.read

    def counted(self: parquet_archive.RangeFile, size: int | None = -1) -> bytes:
        data = fetch(self, size)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(parquet_archive.RangeFile, "read", counted)
    assert [read_entry(entry) for entry in entries[10:20]] == pictures[10:20]
    assert len([size for size in fetched if size > 0]) <= 4
    assert sum(fetched) < 1_300_000


def test_a_row_of_more_bytes_than_the_limit_is_refused_and_repeated_values_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"image": [b"x" * 100_000] * 400, "name": [f"{n}.png" for n in range(400)]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    entries = listed(tmp_path / "p.parquet").entries
    before = pa.total_allocated_bytes()
    assert len(read_entry(entries[7])) == 100_000
    assert pa.total_allocated_bytes() - before < 10 * 100_000
    with pytest.raises(DataError, match="limit of 1000"):
        read_entry(entries[7], DecodeLimits(max_bytes=1000))
    parquet_archive._opened.clear()
    monkeypatch.setattr(parquet_archive, "LARGEST_GROUP_BYTES", 50_000)
    with pytest.raises(DataError, match="smaller row groups") as caught:
        read_entry(entries[7])
    assert caught.value.kind == "too_large"


def test_row_groups_that_nobody_can_hold_are_a_problem_of_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of their pictures would become an error row, when all is planned and fetched."""
    path = tmp_path / "p.parquet"
    data = [bytes([n]) * (100_000 if n // 5 in (1, 3) else 100) for n in range(17)]
    pq.write_table(pa.table({"image": data}), path, row_group_size=5, use_dictionary=False)
    monkeypatch.setattr(parquet_archive, "LARGEST_GROUP_BYTES", 200_000 - 1)
    listing = listed(path)
    assert [entry.offset for entry in listing.entries] == [*range(5), *range(10, 15)]
    assert [read_entry(entry) for entry in listing.entries] == data[:5] + data[10:15]
    (problem,) = listing.problems
    for word in (str(path), "7 pictures", "limit of", "row_group_size=64"):
        assert word in problem
    pq.write_table(pa.table({"image": data[5:10]}), path)
    with pytest.raises(DataError, match=r"no pictures that can be listed: .* row_group_size=64"):
        list_archive(str(path))


def test_lengths_are_estimated_by_row_group_and_bound_no_picture(tmp_path: Path) -> None:
    """A unit of large pictures must not fill a task; a small one among large is no error."""
    path = tmp_path / "p.parquet"
    data = [bytes(100_000)] * 4 + [bytes([1])] + [bytes([2]) * 50] * 5
    pq.write_table(pa.table({"image": data}), path, row_group_size=5, use_dictionary=False)
    entries = listed(path).entries
    lengths = [entry.length or 0 for entry in entries]
    assert lengths == [lengths[0]] * 5 + [lengths[5]] * 5
    assert 80_000 <= lengths[0] < 81_000
    assert 50 <= lengths[5] < 100
    assert read_entry(entries[4], DecodeLimits(max_bytes=10)) == bytes([1])


@pytest.mark.parametrize("claimed", [200_000, 10**12])
def test_a_footer_that_lies_about_its_rows_is_damage(claimed: int, tmp_path: Path) -> None:
    """Found in review: a range as long as the footer said was made in the driver's memory."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": contents(3)}), path)

    class Lying:
        """A footer that says more rows than its row groups have."""

        def __init__(self, real: pq.FileMetaData) -> None:
            self._real = real
            self.num_rows = claimed

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    lister = lister_of(str(path), None, TableColumns())
    assert isinstance(lister, parquet_archive.ParquetLister)
    with pytest.raises(DamagedTableError, match=f"its footer speaks of {claimed} rows"):
        lister._check_count(Lying(pq.read_metadata(path)))
