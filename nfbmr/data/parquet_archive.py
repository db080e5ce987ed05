"""Parquet files that hold encoded pictures in a column: listed without them, read by row group."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nfbmr.data.archive_entry import ENTRIES, ArchiveEntry, ArchiveListing, joined
from nfbmr.data.lister import WholeLister
from nfbmr.data.opened_archives import OpenedArchives
from nfbmr.data.range_file import RangeFile
from nfbmr.data.ranges import changed, size_and_version
from nfbmr.data.table_columns import (
    TableColumns,
    as_text,
    as_times,
    category_column,
    check_columns,
    name_column,
    time_column,
)
from nfbmr.errors import DamagedTableError, DataError
from nfbmr.plain_columns import plain

_GROUPS_KEPT = 2


LARGEST_GROUP_BYTES = 2 * 2**30
"""Of encoded pictures in one row group: what a worker holds of it."""

_REMEDY = (
    "write the file with smaller row groups, about run.unit_size pictures each, for example by "
    "pyarrow.parquet.write_table(table, path, row_group_size=64)"
)


def open_parquet(
    uri: str, size: int, version: str | None, as_dictionary: Sequence[str] = ()
) -> pq.ParquetFile:
    """Open a Parquet file by its footer; what is read later is fetched by range.

    Args:
        uri: its address.
        size: in bytes.
        version: that it must have.
        as_dictionary: columns whose repeated values stay one value in memory.

    Raises:
        DamagedTableError: it is no Parquet file.
    """
    file, repeated = RangeFile(uri, size, version), list(as_dictionary)
    with damage_named(uri):
        return plain(pq.ParquetFile(file, pre_buffer=False, read_dictionary=repeated))


@contextmanager
def damage_named(uri: str) -> Iterator[None]:
    """Tell a damaged Parquet or CSV file from a store that fails: Arrow's ``OSError`` is for both.

    Args:
        uri: of the file.

    Raises:
        DamagedTableError: it is damaged.
    """
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise _damaged(uri, error) from error
    except OSError as error:
        # Arrow's own have no number and no cause; a disk's have the one, a store's the other.
        if error.errno is not None or type(error) is not OSError or error.__cause__ is not None:
            raise
        raise _damaged(uri, error) from error


def _damaged(uri: str, error: Exception) -> DamagedTableError:
    kind = "CSV" if uri.lower().endswith(".csv") else "Parquet file"
    return DamagedTableError(f"{uri} is no readable {kind} ({error}).")


class ParquetLister(WholeLister):
    """Lists the pictures of a Parquet file: its small columns alone are read.

    Args:
        archive: its address.
        size: in bytes.
        version: of its file.
        image: the column path of the encoded pictures.
        columns: what is known of the others.
    """

    def __init__(
        self, archive: str, size: int, version: str, image: str, columns: TableColumns
    ) -> None:
        super().__init__(archive, version)
        self.slices = [f"whole by {image} {columns.text()}"]
        self._size = size
        self._image = image
        self._columns = columns

    def list_whole(self) -> ArchiveListing:
        """One entry for each row; damage is one problem, and so are row groups nobody can hold.

        An entry's length is the mean of its row group: how long each picture is, only reading says.
        """
        try:
            with damage_named(self.archive):
                return self._listing()
        except DamagedTableError as error:
            return ArchiveListing(self.archive, version=self.version, problems=[str(error)])

    def _listing(self) -> ArchiveListing:
        with open_parquet(self.archive, self._size, self.version) as file:
            schema, metadata = file.schema_arrow, file.metadata
            self._check_count(metadata)
            name = name_column(schema, self._columns, self._image)
            category = category_column(schema, self._columns)
            time = time_column(schema, self._columns)
            check_columns(self.archive, schema, [name, category, time])
            wanted = [column for column in (name, category, time) if column is not None]
            found = {column: _column(file, column) for column in wanted}
        rows_G = np.array([group.num_rows for group in _groups(metadata)], dtype=np.int64)
        bytes_G = np.array(_group_bytes(metadata, self._image), dtype=np.int64)
        count = metadata.num_rows
        row = pa.chunked_array([pa.array(np.arange(count, dtype=np.int64))])
        mean_G = np.maximum(bytes_G, 0) // np.maximum(rows_G, 1)
        unknown = {f.name: pa.chunked_array([pa.nulls(count, f.type)]) for f in ENTRIES}
        columns = unknown | {
            "member": _members(found[name] if name else None, row),
            "offset": row,
            "length": pa.chunked_array([pa.array(np.repeat(mean_G, rows_G))]),
        }
        if category is not None:
            columns["category"] = as_text(found[category])
        if time is not None:
            columns["captured_at"] = as_times(self.archive, time, found[time])
        table = pa.table(columns).cast(ENTRIES)
        listing = ArchiveListing(self.archive, table, version=self.version, lookup=self._image)
        fits_G = bytes_G <= LARGEST_GROUP_BYTES
        if not fits_G.all():
            listing.table = table.filter(pa.array(np.repeat(fits_G, rows_G)))
            lost = f", and is left out with all others like it ({rows_G[~fits_G].sum()} pictures)"
            listing.problems.append(_too_large(self.archive, int(bytes_G.max()), lost))
        return listing

    def _check_count(self, metadata: pq.FileMetaData) -> None:
        """Believe the footer's number of rows only where its parts say the same.

        Raises:
            DamagedTableError: they do not, or there are more rows than bytes.
        """
        count, groups = metadata.num_rows, list(_groups(metadata))
        in_groups = sum(group.num_rows for group in groups)
        values = sum(
            group.column(i).num_values
            for group in groups
            for i in range(group.num_columns)
            if group.column(i).path_in_schema == self._image
        )
        if not count == in_groups == values or count > self._size:
            raise DamagedTableError(
                f"{self.archive} is no readable Parquet file: its footer speaks of {count} rows, "
                f"of {in_groups} in row groups and of {values} pictures, in {self._size} bytes."
            )


def _groups(metadata: pq.FileMetaData) -> Iterator[pq.RowGroupMetaData]:
    return map(metadata.row_group, range(metadata.num_row_groups))


def _group_bytes(metadata: pq.FileMetaData, column: str) -> list[int]:
    """Unpacked bytes of a column in each row group."""
    return [
        sum(
            group.column(i).total_uncompressed_size
            for i in range(group.num_columns)
            if group.column(i).path_in_schema == column
        )
        for group in _groups(metadata)
    ]


def _too_large(archive: str, size_bytes: int, more: str = "") -> str:
    """Why a row group is not read, and what to do about it."""
    return (
        f"A row group of {archive} has {size_bytes / 2**30:.1f} GiB of pictures, more than the "
        f"limit of {LARGEST_GROUP_BYTES / 2**30:g} GiB{more}: {_REMEDY}."
    )


def _column(file: pq.ParquetFile, path: str) -> pa.ChunkedArray:
    column = file.read(columns=[path]).column(0)
    for field in path.split(".")[1:]:
        column = pc.struct_field(column, field)
    return column


def _members(names: pa.ChunkedArray | None, row: pa.ChunkedArray) -> pa.ChunkedArray:
    """Names of the rows: unique, because two rows of one name are two pictures."""
    number = row.cast(pa.large_string())
    if names is None:
        return number
    named = pc.coalesce(as_text(names), number)
    if pc.count_distinct(named).as_py() == len(named):
        return named
    return joined(named, number, separator="#")


class _OpenParquet:
    """A Parquet file whose last row groups are kept: a unit's pictures lie side by side.

    Args:
        archive: its address.
        version: that it must have.
        column: the column path of the encoded pictures.
    """

    def __init__(self, archive: str, version: str | None, column: str) -> None:
        self._archive = archive
        size, found = size_and_version(archive)
        if version is not None and found != version:
            raise changed(archive)
        # As stored: a column of few values repeated would take many times its size.
        self._file = open_parquet(archive, size, version, as_dictionary=(column,))
        self._column = column
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        counts = [group.num_rows for group in _groups(self._file.metadata)]
        self._starts = [0, *itertools.accumulate(counts)]
        self._sizes = _group_bytes(self._file.metadata, column)

    def read(self, row: int) -> bytes | None:
        """The bytes of one picture; None where there are none.

        Raises:
            IndexError: there is no such row.
        """
        if row >= self._starts[-1]:
            raise IndexError(f"row {row} of {self._starts[-1]}")
        number = bisect.bisect_right(self._starts, row) - 1
        data: bytes | None = self._group(number)[row - self._starts[number]].as_py()
        return data

    def _group(self, number: int) -> pa.ChunkedArray:
        with self._lock:
            if number not in self._groups:
                self._check_size(number)
                table = self._file.read_row_group(number, columns=[self._column])
                column = table.column(0)
                for field in self._column.split(".")[1:]:
                    column = pc.struct_field(column, field)
                self._groups[number] = column
                if len(self._groups) > _GROUPS_KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return self._groups[number]

    def _check_size(self, number: int) -> None:
        """Refuse a row group that would fill a worker's memory.

        Raises:
            DataError: it would.
        """
        if self._sizes[number] > LARGEST_GROUP_BYTES:
            raise DataError(_too_large(self._archive, self._sizes[number]), "too_large")


_opened = OpenedArchives(_OpenParquet, kept=2)


def read_parquet_row(entry: ArchiveEntry) -> bytes:
    """One picture, out of its row group: one request for all pictures of the group.

    Raises:
        DataError: the row is empty, or the file is not the one that was listed.
    """
    if entry.offset is None or entry.lookup is None:
        raise DataError(f"{entry.image_uri} has no row and column: list the archive again.")
    file = _opened.get(entry.archive, entry.version, entry.lookup)
    data = file.read(entry.offset)
    if data is None:
        raise DataError(f"{entry.image_uri} has no bytes in column {entry.lookup!r}.")
    return data
