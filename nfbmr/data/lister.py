"""How an archive is listed: cut into slices that can be listed at the same time, then joined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from nfbmr.data.archive_entry import ArchiveListing

GOES_ON_AS = "goes_on_as"


@dataclass(frozen=True)
class SliceListing:
    """What one slice holds: can be kept as a Parquet file.

    Attributes:
        table: its rows; the columns are the lister's own.
        notes: plain values for JSON.
    """

    table: pa.Table
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def goes_on_as(self) -> str | None:
        """The name of the slice that holds what was too much for this one."""
        name: str | None = self.notes.get(GOES_ON_AS)
        return name


class Lister(ABC):
    """Lists one archive.

    Args:
        archive: its address.
        version: of its file, where it is one file.

    Attributes:
        slices: their names; what a slice holds follows from archive, version and name.
        comes_in_pieces: whether some of its slices can be joined before the others are listed;
            then no name is in two of them, unless it may repeat.
        may_repeat: whether it may name a picture twice, or one that another lists as well.
    """

    comes_in_pieces = False
    may_repeat = False

    def __init__(self, archive: str, version: str | None) -> None:
        self.archive = archive
        self.version = version
        self.slices: list[str] = []

    @abstractmethod
    def list_slice(self, name: str) -> SliceListing:
        """List one slice. Called from several threads at once."""

    @abstractmethod
    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """Make the archive's listing of those of its slices, in order."""

    def identity(self, name: str) -> list[str | None]:
        """What names the listing of a slice."""
        return [self.archive, self.version, name]


class WholeLister(Lister):
    """Lists an archive by one reader: one slice."""

    def __init__(self, archive: str, version: str | None) -> None:
        super().__init__(archive, version)
        self.slices = ["whole"]

    @abstractmethod
    def list_whole(self) -> ArchiveListing:
        """List the archive."""

    def list_slice(self, name: str) -> SliceListing:
        """List the archive; its only slice is all of it."""
        del name
        listing = self.list_whole()
        notes = {
            "problems": listing.problems,
            "skipped_members": listing.skipped_members,
            "lookup": listing.lookup,
        }
        return SliceListing(listing.table, notes)

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """The archive's listing."""
        (only,) = listings
        return ArchiveListing(self.archive, only.table, version=self.version, **only.notes)
