"""What was listed so far, kept until the plan is made: a listing that was cut off goes on.

Every slice of a source becomes a file of its own, named by what was listed: the archive, its
version, the slice. The same command finds it again and does not list that slice a second time. The
file is a digest and a Parquet file; where they do not fit, the slice is listed anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import storage, store_folders
from nfbmr.data.archives import list_slice
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.errors import DataError
from nfbmr.plain_columns import plain

_NOTES = b"nfbmr.notes"
_DIGEST_BYTES = 16
_KEPT_S = 6 * 3600.0
"""A listing that was cut off goes on for so long; what was listed before that is listed anew."""


class ListingStore:
    """Lists slices, each once.

    Args:
        folder: where finished slices are kept; None keeps nothing.

    Attributes:
        found: how many slices were there already.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self.found = 0
        self._names = _young(folder) if folder else set()

    def list_slice(self, lister: Lister, name: str) -> SliceListing:
        """The listing of a slice, from the store or anew.

        Raises:
            DataError: the storage failed.
        """
        if self.folder is None:
            return list_slice(lister, name)
        file = f"{_digest(json.dumps(lister.identity(name)).encode()).hex()}.listing"
        uri = storage.join(self.folder, file)
        if file in self._names:
            data = storage.read(uri)
            kept = None if data is None else from_bytes(data)
            if kept is not None:
                self.found += 1
                return kept
        listing = list_slice(lister, name)
        # Another driver of the run that has its plan removes the folder: nothing is lost.
        with suppress(FileNotFoundError):
            storage.write_atomically(uri, to_bytes(listing))
        return listing

    def clear(self) -> None:
        """Drop what was kept: the plan has it all."""
        if self.folder is not None:
            with suppress(OSError):  # Another driver may still be writing there.
                store_folders.remove_tree(self.folder)


def _young(folder: str) -> set[str]:
    """Names of what was listed lately: into a prefix, pictures come all the time."""
    oldest = time.time() - _KEPT_S
    return {
        name for name, file in store_folders.list_tree(folder).items() if file.changed_at > oldest
    }


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def to_bytes(listing: SliceListing) -> bytes:
    """A listing as it is kept."""
    metadata = {**(listing.table.schema.metadata or {}), _NOTES: json.dumps(listing.notes)}
    sink = pa.BufferOutputStream()
    pq.write_table(listing.table.replace_schema_metadata(metadata), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return _digest(data) + data


def from_bytes(data: bytes) -> SliceListing | None:
    """A kept listing; None where the file is damaged: then the slice is listed anew."""
    digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(data):
        return None
    try:
        table = plain(pq.read_table(pa.BufferReader(data)))
        notes = json.loads((table.schema.metadata or {})[_NOTES])
    except (pa.ArrowException, DataError, ValueError, KeyError, OSError):
        return None
    return SliceListing(table.replace_schema_metadata(None), notes)
