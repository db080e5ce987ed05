"""Archives read where they lie: which pictures they hold, and the bytes of each.

A picture in a folder or prefix is named by its own URI. A member of a tar or zip is named
``<archive>::<member>``; that name is never used as a path, and nothing is unpacked to disk.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

import fsspec

from nfbmr import storage
from nfbmr.data.content import read_bytes
from nfbmr.data.listing import Tree, is_picture
from nfbmr.errors import DataError

_TAR_SUFFIXES = (".tar",)
_COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz")
_ZIP_SUFFIX = ".zip"


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One picture in an archive.

    Attributes:
        archive: the folder, prefix, tar or zip it lies in.
        member: its name in there.
        offset: of its bytes in the archive, where they can be read by one range request.
        length: of its bytes.
    """

    archive: str
    member: str
    offset: int | None = None
    length: int | None = None

    @property
    def image_uri(self) -> str:
        """The picture's unique name."""
        if _is_file_archive(self.archive):
            return f"{self.archive}::{self.member}"
        return storage.join(self.archive, self.member)


@dataclass
class ArchiveListing:
    """What an archive holds.

    Attributes:
        entries: the pictures, in the archive's order; of two with one name the last counts, as
            tar and zip say.
        problems: damage that hides members that can no longer be listed.
        skipped_members: members that are no pictures by their names.
    """

    entries: list[ArchiveEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped_members: int = 0

    def add(self, entry: ArchiveEntry) -> None:
        """Take an entry if it is a picture, else count it."""
        if is_picture(entry.member):
            self.entries.append(entry)
        else:
            self.skipped_members += 1


def _is_file_archive(uri: str) -> bool:
    return uri.lower().endswith((*_TAR_SUFFIXES, *_COMPRESSED_TAR_SUFFIXES, _ZIP_SUFFIX))


def list_archive(uri: str) -> ArchiveListing:
    """List the pictures of a folder, prefix, tar, tar.gz or zip.

    Raises:
        DataError: it is missing, cannot be read at all, or holds no picture.
    """
    uri = storage.absolute_uri(uri.rstrip("/"))
    lowered = uri.lower()
    if lowered.endswith((*_TAR_SUFFIXES, *_COMPRESSED_TAR_SUFFIXES)):
        listing = _list_tar(uri)
    elif lowered.endswith(_ZIP_SUFFIX):
        listing = _list_zip(uri)
    else:
        listing = _list_tree(uri)
    if not listing.entries and not listing.problems:
        raise DataError(
            f"{uri} holds no pictures ({listing.skipped_members} other files): expected jpg, png, "
            "bmp, tiff or webp."
        )
    last = {entry.member: entry for entry in listing.entries}
    listing.entries = list(last.values())
    return listing


def read_entry(entry: ArchiveEntry) -> bytes:
    """The encoded bytes of one picture, read by range where the archive allows it.

    Raises:
        DataError: they cannot be read; the message says why.
    """
    if not _is_file_archive(entry.archive):
        return read_bytes(entry.image_uri)
    try:
        if entry.offset is not None and entry.length is not None:
            return _read_range(entry.archive, entry.offset, entry.length)
        if entry.archive.lower().endswith(_ZIP_SUFFIX):
            return _read_zip_member(entry)
        return _read_tar_member(entry)
    except (OSError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{entry.image_uri} cannot be read: {error}.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{entry.image_uri} cannot be unzipped: {error}.") from error


def _open(uri: str) -> BinaryIO:
    try:
        file: BinaryIO = fsspec.open(uri, "rb").open()
    except FileNotFoundError as error:
        raise DataError(f"The archive {uri} does not exist: check the path.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The archive {uri} cannot be opened: {error}.") from error
    return file


def _list_tree(uri: str) -> ArchiveListing:
    tree = Tree(uri)
    listing = ArchiveListing()
    for name, length in tree.files.items():
        listing.add(ArchiveEntry(tree.root, name, None, length))
    return listing


def _list_tar(uri: str) -> ArchiveListing:
    """Follow the chain of headers; only headers are read where the file can seek."""
    listing = ArchiveListing()
    compressed = uri.lower().endswith(_COMPRESSED_TAR_SUFFIXES)
    with _open(uri) as file:
        size = None if compressed else file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:gz" if compressed else "r:") as tar:
                for member in tar:
                    if not member.isfile():
                        listing.skipped_members += not member.isdir()
                        continue
                    offset = None if compressed else member.offset_data
                    if size is not None and member.offset_data + member.size > size:
                        listing.problems.append(f"{uri} ends in the middle of {member.name!r}")
                        break
                    listing.add(ArchiveEntry(uri, member.name, offset, member.size))
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            listing.problems.append(
                f"{uri} is damaged after its first {len(listing.entries)} pictures: {error}"
            )
    return listing


def _list_zip(uri: str) -> ArchiveListing:
    listing = ArchiveListing()
    with _open(uri) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        listing.add(ArchiveEntry(uri, info.filename, None, info.file_size))
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DataError(f"{uri} is no readable zip archive: {error}.") from error
    return listing


def _read_range(uri: str, offset: int, length: int) -> bytes:
    with _open(uri) as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise DataError(f"{uri} ends {length - len(data)} bytes before the end of a member.")
    return data


def _read_zip_member(entry: ArchiveEntry) -> bytes:
    with _open(entry.archive) as file, zipfile.ZipFile(file) as archive:
        return archive.read(entry.member)


def _read_tar_member(entry: ArchiveEntry) -> bytes:
    with _open(entry.archive) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        member = tar.extractfile(entry.member)
        if member is None:
            raise DataError(f"{entry.image_uri} is no file.")
        return member.read()
