"""What archives are listed into: entries that say where a picture's bytes are found."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfbmr import storage
from nfbmr.data.listing import is_picture
from nfbmr.errors import DataError

COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz")
FILE_ARCHIVE_SUFFIXES = (".tar", *COMPRESSED_TAR_SUFFIXES, ".zip")


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One picture in an archive.

    Attributes:
        archive: the folder, prefix, tar or zip it lies in; a plain absolute path on a local disk.
        member: its name in there.
        offset: where its bytes are found: of its data in a tar, of its data in the unpacked
            stream of a compressed tar, of its local header in a zip; None for a file of its own.
        length: of the encoded picture in bytes, where known.
        version: of a file of its own when it was listed, see ``storage.version_of``.
    """

    archive: str
    member: str
    offset: int | None = None
    length: int | None = None
    version: str | None = None

    @property
    def image_uri(self) -> str:
        """The picture's name: the file's own URI, or ``<archive>::<member>``."""
        if self.archive.lower().endswith(FILE_ARCHIVE_SUFFIXES):
            return f"{self.archive}::{self.member}"
        return storage.join(self.archive, self.member)


@dataclass
class ArchiveListing:
    """What an archive holds.

    Attributes:
        entries: the pictures: by name in a folder, in the archive's order in a tar or zip.
        problems: damage that hides members, one sentence each; every one stands for at least one
            picture that may be lost and belongs in an error row.
        skipped_members: files that are no pictures by their names, and links to outside.
        replaced_members: pictures that a later member of the same name replaces, as tar and zip
            say.
        version: of the tar or zip when it was listed.
    """

    entries: list[ArchiveEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped_members: int = 0
    replaced_members: int = 0
    version: str | None = None

    def add(self, entry: ArchiveEntry) -> None:
        """Take an entry if it is a picture, else count it."""
        if is_picture(entry.member):
            self.entries.append(entry)
        else:
            self.skipped_members += 1

    def keep_last_of_each_name(self) -> None:
        """Drop and count the entries that a later one replaces."""
        last = {entry.member: entry for entry in self.entries}
        self.replaced_members += len(self.entries) - len(last)
        self.entries = list(last.values())


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
