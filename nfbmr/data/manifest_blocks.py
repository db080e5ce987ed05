"""The rows of a manifest, read a block at a time: one of a billion pictures fits no memory."""

from __future__ import annotations

import itertools
import posixpath
import threading
from bisect import bisect_right
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nfbmr.data.archive_entry import ENTRIES
from nfbmr.data.parquet_archive import damage_named, open_parquet
from nfbmr.data.ranges import fetch_patiently
from nfbmr.data.table_columns import (
    TableColumns,
    as_lengths,
    as_text,
    as_times,
    category_column,
    check_columns,
    no_pictures_in,
    time_column,
    uri_column,
)
from nfbmr.errors import MAY_HOLD_A_LOGIN, DamagedTableError, refuse_login

NAMED = pa.schema([*ENTRIES, pa.field("name", pa.large_string())])
"""An entry, and what a category pattern is matched with."""

_BLOCKS_KEPT = 2
_KNOWN_BY_NAME = ("etag", "size")


class ManifestBlocks:
    """A manifest's rows, of which only the block that is asked for is in memory.

    A row group of a Parquet file is a block; a CSV file is one.

    Args:
        archive: its address.
        size: in bytes.
        version: of its file.
        columns: what is known of its columns.

    Attributes:
        starts: the first row of each block, then how many rows there are.

    Raises:
        DataError: it cannot be read, or has no column of URIs.
    """

    def __init__(self, archive: str, size: int, version: str, columns: TableColumns) -> None:
        self._key = (archive, size, version, columns)
        if _is_parquet(archive):
            with damage_named(archive), open_parquet(archive, size, version) as file:
                _wanted(archive, file.schema_arrow, columns)
                metadata = file.metadata
                counts = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        else:
            counts = [len(_kept_block(*self._key, 0))]
        self.starts = [0, *itertools.accumulate(counts)]

    def rows(self, start: int, count: int) -> pa.Table:
        """Rows of ``NAMED`` from one on, at most so many and none of the next block.

        Raises:
            DataError: they cannot be read.
            ConfigError: a URI has a login in it.
        """
        number = self.number_of(start)
        return _kept_block(*self._key, number).slice(start - self.starts[number], count)

    def number_of(self, row: int) -> int:
        """Of the block that a row is in."""
        return bisect_right(self.starts, row) - 1


_reading = threading.Lock()


def _kept_block(
    archive: str, size: int, version: str, columns: TableColumns, number: int
) -> pa.Table:
    # One thread at a time: those that list slices of one block shall not each read it.
    with _reading, damage_named(archive):
        return _block(archive, size, version, columns, number)


@lru_cache(maxsize=_BLOCKS_KEPT)
def _block(archive: str, size: int, version: str, columns: TableColumns, number: int) -> pa.Table:
    """A block with the columns of ``NAMED``; URIs absolute."""
    table = _table(archive, size, version, columns, number)
    uri, category, time = _wanted(archive, table.schema, columns)
    root, count = archive.rpartition("/")[0], len(table)
    found = {f.name: pa.chunked_array([pa.nulls(count, f.type)]) for f in NAMED}
    found["member"] = _absolute(root, as_text(table.column(uri)))
    for suspect in found["member"].filter(_may_hold_a_login(found["member"])).to_pylist():
        refuse_login(suspect)
    found["name"] = _names(root, found["member"])
    if category is not None:
        found["category"] = as_text(table.column(category))
    if time is not None:
        found["captured_at"] = as_times(archive, time, table.column(time))
    if "etag" in table.schema.names:
        quoted = as_text(table.column("etag"))
        found["version"] = pc.utf8_trim(quoted, characters='"')
    if "size" in table.schema.names:
        found["length"] = as_lengths(table.column("size"))
    return pa.table(found).cast(NAMED)


def _is_parquet(archive: str) -> bool:
    return archive.lower().endswith(".parquet")


def _wanted(
    archive: str, schema: pa.Schema, columns: TableColumns
) -> tuple[str, str | None, str | None]:
    """The columns of URIs, categories and times.

    Raises:
        DataError: there is none of URIs, or one that was named is missing.
    """
    uri = uri_column(schema, columns)
    if uri is None:
        raise no_pictures_in(archive, schema)
    category, time = category_column(schema, columns), time_column(schema, columns)
    check_columns(archive, schema, [uri, category, time])
    return uri, category, time


def _table(archive: str, size: int, version: str, columns: TableColumns, number: int) -> pa.Table:
    if _is_parquet(archive):
        with damage_named(archive), open_parquet(archive, size, version) as file:
            wanted = {*_wanted(archive, file.schema_arrow, columns), *_KNOWN_BY_NAME}
            names = [name for name in file.schema_arrow.names if name in wanted]
            return file.read_row_group(number, columns=names)
    data = fetch_patiently(archive, 0, size, version)
    try:
        return _csv_of_text(data)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DamagedTableError(f"{archive} is no readable CSV in UTF-8 ({error}).") from error


def _csv_of_text(data: bytes) -> pa.Table:
    """A CSV with columns of text: what looks like a number, as category 007, may be a name."""
    with pyarrow.csv.open_csv(pa.BufferReader(data)) as reader:
        names = reader.schema.names
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.large_string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=options)


def _absolute(root: str, uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """URIs as ``storage.absolute_uri`` makes them; relative ones begin at the manifest's folder.

    A picture has one name, however it is written: it is in a run once.
    """
    plain = pc.replace_substring_regex(uris, r"^file:(//(localhost)?)?/", "/")
    plain = pc.replace_substring_regex(plain, r"^file://", "")
    plain = pc.replace_substring_regex(plain, r"^s3a://", "s3://")
    is_absolute = pc.match_substring_regex(plain, r"^(/|[a-z0-9+.-]+://)")
    absolute = pc.if_else(is_absolute, plain, _after(f"{root}/", plain))
    has_protocol = pc.match_substring_regex(absolute, r"^[a-z0-9+.-]+://")
    without_slash = pc.replace_substring_regex(absolute, r"([^/])/+$", r"\1")
    return pc.if_else(has_protocol, without_slash, _without_detours(absolute))


def _without_detours(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Local paths without double slashes, ``.`` and ``..``; few have any."""
    has_detour = pc.fill_null(pc.match_substring_regex(paths, r"//|/\.{0,2}$|/\.{1,2}/"), False)
    mask = has_detour.combine_chunks()
    direct = [posixpath.normpath(path) for path in paths.filter(mask).to_pylist()]
    return pc.replace_with_mask(paths.combine_chunks(), mask, pa.array(direct, paths.type))


def _names(root: str, uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """What a category pattern is matched with: the path below the manifest or the bucket."""
    below = pc.utf8_slice_codeunits(uris, len(root) + 1)
    path = pc.replace_substring_regex(uris, r"^([a-z0-9+.-]+://[^/]*)?/+", "")
    return pc.if_else(pc.starts_with(uris, f"{root}/"), below, path)


def _may_hold_a_login(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(uris, MAY_HOLD_A_LOGIN), False)


def _after(prefix: str, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(
        pa.scalar(prefix, pa.large_string()), texts, pa.scalar("", pa.large_string())
    )
