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
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.data.manifest_blocks import NAMED, ManifestBlocks
from nfbmr.data.ranges import locate
from nfbmr.data.table_columns import TableColumns
from nfbmr.data.tree_listing import children
from nfbmr.errors import DamagedTableError
from nfbmr.store_faults import StoreFault, fault_of, retried

ROWS_PER_SLICE = 10_000
ABSENT = "absent"
"""The version of a file that was not there."""

_LOOKERS = 16
_PAGE = 1000
_WORTH_LISTING = 8
_OF_THE_STORE = (StoreFault.BUSY, StoreFault.FULL, StoreFault.REFUSES_ALL)


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
    comes_in_pieces = True

    def __init__(self, archive: str, size: int, version: str, columns: TableColumns) -> None:
        super().__init__(archive, version)
        self._size = size
        self._blocks = ManifestBlocks(archive, size, version, columns)
        bounds = [
            range(start, stop, ROWS_PER_SLICE) for start, stop in pairwise(self._blocks.starts)
        ]
        self.slices = [
            f"rows from {start} by {columns.text()}" for start in itertools.chain(*bounds)
        ]

    def list_slice(self, name: str) -> SliceListing:
        """Look up some rows of the manifest."""
        start = int(name.split()[2])
        try:
            rows = self._blocks.rows(start, ROWS_PER_SLICE)
        except DamagedTableError as error:
            return SliceListing(NAMED.empty_table(), {"problems": self._unreadable(start, error)})
        missing = pc.is_null(rows.column("member"))
        numbers = pc.indices_nonzero(missing).to_pylist()
        problems = [f"{self.archive} has no URI in row {start + n + 1}" for n in numbers]
        rows = rows.filter(pc.invert(missing))
        return SliceListing(_looked_up(rows), {"problems": problems})

    def _unreadable(self, start: int, error: DamagedTableError) -> list[str]:
        """A problem for each row of a damaged slice, as far as their number can be believed."""
        stop = min(start + ROWS_PER_SLICE, self._blocks.starts[self._blocks.number_of(start) + 1])
        if self._blocks.starts[-1] > self._size:
            return [f"{self.archive} has unreadable rows, {start + 1} to {stop}: {error}"]
        return [
            f"{self.archive} has an unreadable row {n + 1}: {error}" for n in range(start, stop)
        ]

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """Their pictures in the manifest's order."""
        problems = [text for listing in listings for text in listing.notes["problems"]]
        tables = [NAMED.empty_table(), *(listing.table for listing in listings)]
        return ArchiveListing(self.archive, pa.concat_tables(tables), problems)


def _looked_up(rows: pa.Table) -> pa.Table:
    """The rows; where nothing is said of a file, with its length and version as they are now."""
    known = pc.or_(pc.is_valid(rows.column("version")), pc.is_valid(rows.column("length")))
    uris = rows.column("member").filter(pc.invert(known)).to_pylist()
    found = look_up(uris) if uris else {}
    lengths = pa.array([found[uri][0] for uri in uris], pa.int64())
    versions = pa.array([found[uri][1] for uri in uris], pa.string())
    for name, values in (("length", lengths), ("version", versions)):
        said = rows.column(name).combine_chunks()
        mended = pc.replace_with_mask(said, pc.invert(known).combine_chunks(), values)
        rows = rows.set_column(rows.schema.get_field_index(name), NAMED.field(name), mended)
    return rows


Known = tuple[int | None, str | None]
"""Size in bytes and version of a file, as far as they are known."""


def look_up(uris: Sequence[str]) -> dict[str, Known]:
    """Size and version of files; ``ABSENT`` for those that are not there.

    Nothing is known of one that cannot be asked for (access to it is refused, its name or protocol
    is impossible): fetching it says why, in an error row of its own.

    Raises:
        Exception: whatever the store raises that does not answer, or refuses everything.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        folders[uri.rpartition("/")[0]].append(uri)
    with ThreadPoolExecutor(_LOOKERS) as pool:
        found: dict[str, Known] = {}
        for part in pool.map(_by_listing, folders.values()):
            found |= part
        left = [uri for uri in uris if uri not in found]
        found |= zip(left, pool.map(_by_asking, left), strict=True)
    return found


def _by_listing(uris: Sequence[str]) -> dict[str, Known]:
    """Those that a listing finds, given up where it would take more requests than asking."""
    if len(uris) < _WORTH_LISTING:
        return {}
    try:
        return _found_in_folder(uris)
    except Exception as error:  # Each of them is asked for.
        if fault_of(error) in _OF_THE_STORE:
            raise
        return {}


def _found_in_folder(uris: Sequence[str]) -> dict[str, Known]:
    fs, path = locate(uris[0])
    if isinstance(fs, LocalFileSystem):
        return {}
    names = {uri.rpartition("/")[2]: uri for uri in uris}
    pages = 1 + len(uris) // _WORTH_LISTING
    infos = children(fs, path.rpartition("/")[0])
    found: dict[str, Known] = {}
    for info in itertools.islice(infos, pages * _PAGE):
        uri = names.get(info["name"].rpartition("/")[2])
        if uri is not None and info["type"] == "file":
            found[uri] = _size_and_version(info)
            if len(found) == len(names):
                break
    return found


def _by_asking(uri: str) -> Known:
    try:
        fs, path = locate(uri)
        if not isinstance(fs, LocalFileSystem):
            fs.invalidate_cache(path.rpartition("/")[0])
        info = retried(lambda: fs.info(path))
    except FileNotFoundError:
        return None, ABSENT
    except Exception as error:
        if fault_of(error) in _OF_THE_STORE:
            raise
        return None, None
    return _size_and_version(info) if info["type"] == "file" else (None, ABSENT)


def _size_and_version(info: Mapping[str, Any]) -> Known:
    """As a store says it; servers of plain HTTP may keep a file's size to themselves."""
    size = info.get("size")
    return None if size is None else int(size), storage.version_of(info)
