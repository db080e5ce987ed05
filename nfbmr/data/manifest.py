"""Manifests: tables of the URIs of pictures, with what else is known of them.

What a manifest does not say, the version or size of each file, is looked up while it is listed:
a file that changes between plan and reading must be noticed, and looking later would take what is
there by then for what was meant. Files of one folder are looked up by listing it where that takes
fewer requests than asking for each. Columns ``etag`` or ``size`` save all of it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import ENTRIES, ArchiveListing
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.data.parquet_archive import open_parquet
from nfbmr.data.ranges import fetch_patiently, locate
from nfbmr.data.table_columns import (
    TableColumns,
    as_text,
    as_times,
    category_column,
    check_columns,
    no_pictures_in,
    time_column,
    uri_column,
)
from nfbmr.data.tree_listing import children
from nfbmr.errors import DataError, refuse_login
from nfbmr.store_faults import retried

ROWS_PER_SLICE = 10_000
ABSENT = "absent"
"""The version of a file that was not there."""

_LOOKERS = 16
_PAGE = 1000
_WORTH_LISTING = 8
_NAMED = pa.schema([*ENTRIES, pa.field("name", pa.large_string())])


class ManifestLister(Lister):
    """Lists the pictures that a manifest names, each a file of its own.

    Args:
        archive: the manifest's address, ``.parquet`` or ``.csv``.
        size: in bytes.
        version: of its file.
        columns: what is known of its columns.

    Raises:
        DataError: it cannot be read, or has no column of URIs.
    """

    may_repeat = True

    def __init__(self, archive: str, size: int, version: str, columns: TableColumns) -> None:
        super().__init__(archive, version)
        self._root = archive.rpartition("/")[0]
        self._rows = self._read(size, columns)
        bounds = range(0, len(self._rows), ROWS_PER_SLICE)
        self.slices = [f"rows from {start} by {columns.text()}" for start in bounds]

    def _read(self, size: int, columns: TableColumns) -> pa.Table:
        """The manifest with the columns of ``_NAMED``; URIs absolute."""
        table = self._table(size)
        schema = table.schema
        uri = uri_column(schema, columns)
        if uri is None:
            raise no_pictures_in(self.archive, schema)
        category, time = category_column(schema, columns), time_column(schema, columns)
        check_columns(self.archive, schema, [uri, category, time])
        count = len(table)
        found = {f.name: pa.chunked_array([pa.nulls(count, f.type)]) for f in _NAMED}
        found["member"] = self._absolute(as_text(table.column(uri)))
        for with_login in found["member"].filter(_has_login(found["member"])).to_pylist()[:1]:
            refuse_login(with_login)
        found["name"] = self._names(found["member"])
        if category is not None:
            found["category"] = as_text(table.column(category))
        if time is not None:
            found["captured_at"] = as_times(self.archive, time, table.column(time))
        if "etag" in schema.names:
            quoted = as_text(table.column("etag"))
            found["version"] = pc.utf8_trim(quoted, characters='"')
        if "size" in schema.names:
            found["length"] = table.column("size").cast(pa.int64())
        return pa.table(found).cast(_NAMED)

    def _table(self, size: int) -> pa.Table:
        if self.archive.lower().endswith(".parquet"):
            with open_parquet(self.archive, size, self.version) as file:
                flat = [
                    field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)
                ]
                return file.read(columns=flat)
        data = fetch_patiently(self.archive, 0, size, self.version)
        try:
            return _csv_of_text(data)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.archive} is no readable CSV ({error}).") from error

    def _absolute(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """URIs made absolute: relative ones from the manifest's folder on."""
        plain = pc.replace_substring_regex(uris, r"^file://", "")
        is_absolute = pc.match_substring_regex(plain, r"^(/|[a-z0-9+.-]+://)")
        return pc.if_else(is_absolute, plain, _after(f"{self._root}/", plain))

    def _names(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """What a category pattern is matched with: the path below the manifest or the bucket."""
        root = f"{self._root}/"
        below = pc.utf8_slice_codeunits(uris, len(root))
        path = pc.replace_substring_regex(uris, r"^([a-z0-9+.-]+://[^/]*)?/+", "")
        return pc.if_else(pc.starts_with(uris, root), below, path)

    def list_slice(self, name: str) -> SliceListing:
        """Look up some rows of the manifest."""
        start = ROWS_PER_SLICE * self.slices.index(name)
        rows = self._rows.slice(start, ROWS_PER_SLICE)
        missing = pc.is_null(rows.column("member"))
        numbers = pc.indices_nonzero(missing).to_pylist()
        problems = [f"{self.archive} has no URI in row {start + n + 1}" for n in numbers]
        rows = rows.filter(pc.invert(missing))
        known = pc.or_(pc.is_valid(rows.column("version")), pc.is_valid(rows.column("length")))
        if not pc.all(known).as_py():
            rows = _looked_up(rows)
        return SliceListing(rows, {"problems": problems})

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """All pictures in the manifest's order."""
        problems = [text for listing in listings for text in listing.notes["problems"]]
        tables = [_NAMED.empty_table(), *(listing.table for listing in listings)]
        return ArchiveListing(self.archive, pa.concat_tables(tables), problems)


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


def _has_login(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(uris, r"://[^/@\s]+@"), False)


def _after(prefix: str, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(
        pa.scalar(prefix, pa.large_string()), texts, pa.scalar("", pa.large_string())
    )


def _looked_up(rows: pa.Table) -> pa.Table:
    """The rows with length and version of every file as it is now."""
    uris = rows.column("member").to_pylist()
    found = look_up(uris)
    lengths = pa.array([found[uri][0] for uri in uris], pa.int64())
    versions = pa.array([found[uri][1] for uri in uris], pa.string())
    for name, values in (("length", lengths), ("version", versions)):
        rows = rows.set_column(rows.schema.get_field_index(name), _NAMED.field(name), values)
    return rows


def look_up(uris: Sequence[str]) -> dict[str, tuple[int | None, str]]:
    """Size in bytes and version of files; ``ABSENT`` for those that are not there.

    Raises:
        Exception: whatever the store raises.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        folders[uri.rpartition("/")[0]].append(uri)
    with ThreadPoolExecutor(_LOOKERS) as pool:
        found: dict[str, tuple[int | None, str]] = {}
        for part in pool.map(lambda item: _by_listing(*item), folders.items()):
            found |= part
        left = [uri for uri in uris if uri not in found]
        found |= zip(left, pool.map(_by_asking, left), strict=True)
    return found


def _by_listing(folder: str, uris: Sequence[str]) -> dict[str, tuple[int | None, str]]:
    """Those that a listing finds, given up where it would take more requests than asking."""
    fs, path = locate(uris[0])
    if len(uris) < _WORTH_LISTING or isinstance(fs, LocalFileSystem):
        return {}
    names = {uri.rpartition("/")[2]: uri for uri in uris}
    pages = 1 + len(uris) // _WORTH_LISTING
    infos = children(fs, path.rpartition("/")[0])
    found: dict[str, tuple[int | None, str]] = {}
    for info in itertools.islice(infos, pages * _PAGE):
        uri = names.get(info["name"].rpartition("/")[2])
        if uri is not None and info["type"] == "file":
            found[uri] = _size_and_version(info)
            if len(found) == len(names):
                break
    return found


def _by_asking(uri: str) -> tuple[int | None, str]:
    fs, path = locate(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.invalidate_cache(path.rpartition("/")[0])
    try:
        info = retried(lambda: fs.info(path))
    except FileNotFoundError:
        return None, ABSENT
    return _size_and_version(info) if info["type"] == "file" else (None, ABSENT)


def _size_and_version(info: Mapping[str, Any]) -> tuple[int, str]:
    return int(info["size"]), storage.version_of(info)
