"""What archives are listed into: entries that say where a picture's bytes are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.errors import DataError

COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz")
TABLE_SUFFIXES = (".parquet", ".csv")
FILE_ARCHIVE_SUFFIXES = (".tar", *COMPRESSED_TAR_SUFFIXES, ".zip", *TABLE_SUFFIXES)

ENTRIES = pa.schema(
    [
        ("member", pa.large_string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("version", pa.string()),
        ("category", pa.string()),
        ("captured_at", pa.timestamp("ms", tz="UTC")),
    ]
)
"""One picture of an archive; see ``ArchiveEntry``. Text is 64-bit: a billion names fit."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One picture in an archive.

    Attributes:
        archive: the folder, prefix, tar, zip, Parquet file or manifest it was found in; a plain
            absolute path on a local disk.
        member: its name in there; in a manifest, the absolute URI of a file of its own.
        offset: where its bytes are found: of its data in a tar, of its data in the unpacked
            stream of a compressed tar, of its local header in a zip, the number of its row in a
            Parquet file; None for a file of its own.
        length: of the encoded picture in bytes, where known; of a row of a Parquet file the mean of
            its row group, see ``is_row``.
        version: of the file that holds its bytes when it was listed, see ``storage.version_of``;
            None where it is not checked.
        lookup: what finds its bytes there: where the seek index of a compressed tar lies, the
            column of a Parquet file.
    """

    archive: str
    member: str
    offset: int | None = None
    length: int | None = None
    version: str | None = None
    lookup: str | None = None

    @property
    def image_uri(self) -> str:
        """The picture's name: the file's own URI, or ``<archive>::<member>``."""
        lowered = self.archive.lower()
        if self.offset is None and lowered.endswith(TABLE_SUFFIXES):
            return self.member
        if lowered.endswith(FILE_ARCHIVE_SUFFIXES):
            return f"{self.archive}::{self.member}"
        return f"{self.archive.rstrip('/')}/{self.member}"


@dataclass
class ArchiveListing:
    """What an archive holds.

    Attributes:
        archive: its address.
        table: rows of ``ENTRIES``: by name in a folder, in the archive's order elsewhere.
        problems: damage that hides members, one sentence each; every one stands for at least one
            picture that may be lost and belongs in an error row.
        skipped_members: files that are no pictures by their names, and links to outside.
        replaced_members: pictures that a later member of the same name replaces, as tar and zip
            say.
        version: of the tar, zip or Parquet file when it was listed.
        lookup: of its entries, see ``ArchiveEntry``.
        problems_before: how many there were in earlier pieces of the same archive.
    """

    archive: str
    table: pa.Table = field(default_factory=ENTRIES.empty_table)
    problems: list[str] = field(default_factory=list)
    skipped_members: int = 0
    replaced_members: int = 0
    version: str | None = None
    lookup: str | None = None
    problems_before: int = 0

    @property
    def entries(self) -> list[ArchiveEntry]:
        """The pictures one by one: for an archive that is known to be small."""
        columns = [self.table.column(name).to_pylist() for name in ENTRIES.names[:4]]
        return [
            ArchiveEntry(self.archive, member, offset, length, version or self.version, self.lookup)
            for member, offset, length, version in zip(*columns, strict=True)
        ]

    @property
    def category_names(self) -> pa.ChunkedArray:
        """What a category pattern is matched with: the members, or what they are called instead."""
        is_named = "name" in self.table.column_names
        return self.table.column("name" if is_named else "member")

    def image_uris(self) -> pa.ChunkedArray:
        """The names of the pictures, see ``ArchiveEntry.image_uri``."""
        members = self.table.column("member")
        if not self.archive.lower().endswith(FILE_ARCHIVE_SUFFIXES):
            root = self.archive.rstrip("/") + "/"
            return joined(root, members, separator="")
        named = joined(self.archive, members, separator="::")
        if not self.archive.lower().endswith(TABLE_SUFFIXES):
            return named
        return pc.if_else(pc.is_null(self.table.column("offset")), members, named)

    def keep_last_of_each_name(self) -> None:
        """Drop and count the entries that a later one replaces."""
        members = self.table.column("member")
        if pc.count_distinct(members).as_py() == len(members):
            return
        rows = pa.table({"member": members, "row": pa.array(range(len(members)))})
        last = rows.group_by("member").aggregate([("row", "max")]).column("row_max")
        kept = self.table.take(last.take(pc.sort_indices(last)))
        self.replaced_members += len(members) - len(kept)
        self.table = kept


class EntryRows:
    """Collects rows of a table one by one, column by column and not as objects.

    Args:
        schema: of the table.
    """

    _CHUNK = 65_536

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._columns: list[list[Any]] = [[] for _ in schema]
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches) + len(self._columns[0])

    def add(self, values: Sequence[Any]) -> None:
        """Take one row: a value for each column of the schema."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if len(self._columns[0]) >= self._CHUNK:
            self._flush()

    def _flush(self) -> None:
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(self._columns, self.schema, strict=True)
        ]
        self._batches.append(pa.record_batch(arrays, schema=self.schema))
        self._columns = [[] for _ in self.schema]

    def table(self) -> pa.Table:
        """The rows so far."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self.schema)


def joined(*parts: pa.ChunkedArray | str, separator: str) -> pa.ChunkedArray:
    """64-bit text columns and constants joined row by row."""
    columns = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
    return pc.binary_join_element_wise(*columns, pa.scalar(separator, pa.large_string()))


def is_row(archive: str, offset: int | None) -> bool:
    """Whether a picture is a row of a Parquet file: its length is an estimate, to cut units by.

    Args:
        archive: that the picture was found in.
        offset: of its entry.
    """
    return offset is not None and archive.lower().endswith(".parquet")


def place(entry: ArchiveEntry) -> tuple[int, int]:
    """Offset and length of an entry in its archive.

    Raises:
        DataError: it has none.
    """
    if entry.offset is None or entry.length is None:
        raise DataError(f"{entry.image_uri} has no place in its archive: list the archive again.")
    return entry.offset, entry.length


def whole(entry: ArchiveEntry, data: bytes) -> bytes:
    """The data, if it is as long as the entry says.

    Raises:
        DataError: it is not.
    """
    if len(data) != entry.length:
        raise DataError(
            f"{entry.image_uri} has {len(data)} of its {entry.length} bytes: it was cut off, or "
            "changed since it was listed."
        )
    return data


def printable(name: str) -> str:
    """A name with its bytes that are not UTF-8 written as escapes; others as they are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
