"""Listers of tar archives: one slice per worker, or one reader where the archive is compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.block_reader import BlockReader
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.data.tar_archive import Chain, follow_slice
from nfbmr.data.tar_headers import BLOCK_BYTES
from nfbmr.data.tar_joining import join_chains

SLICE_BYTES = 128 * 2**20


class TarLister(Lister):
    """Lists a tar in slices of so many bytes.

    Args:
        archive: its address.
        size: in bytes.
        version: of its file.
        slice_bytes: a multiple of 512; by default ``SLICE_BYTES``.
    """

    def __init__(
        self, archive: str, size: int, version: str, slice_bytes: int | None = None
    ) -> None:
        super().__init__(archive, version)
        slice_bytes = SLICE_BYTES if slice_bytes is None else slice_bytes
        if slice_bytes <= 0 or slice_bytes % BLOCK_BYTES:
            raise ValueError(f"slice_bytes = {slice_bytes}: expected a multiple of {BLOCK_BYTES}.")
        self._size = size
        self._bounds = [(s, min(s + slice_bytes, size)) for s in range(0, size, slice_bytes)]
        self.slices = [f"bytes {start} to {stop}" for start, stop in self._bounds]

    def _reader(self) -> BlockReader:
        return BlockReader(self.archive, self._size, self.version)

    def list_slice(self, name: str) -> SliceListing:
        """Follow the chain of headers in one slice."""
        start, stop = self._bounds[self.slices.index(name)]
        chain = follow_slice(self._reader(), start, stop, self._size)
        notes = {f.name: getattr(chain, f.name) for f in fields(chain) if f.name != "rows"}
        return SliceListing(chain.rows, notes)

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """Join the chains; what does not fit together is followed again by one reader."""
        chains = [Chain(listing.table, **listing.notes) for listing in listings]
        listing = join_chains(self.archive, chains, self._bounds, self._reader)
        listing.version = self.version
        return listing
