"""Archives read where they lie: which pictures they hold, and the bytes of each.

A picture in a folder or prefix is named by its own URI. A member of a tar or zip is named
``<archive>::<member>``. That name is for people and for joining tables: it is never opened as a
path, and what it stands for is said exactly by an entry's ``archive``, ``offset`` and ``length``.
Nothing is unpacked to disk, and a member's name never becomes a path.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import (
    COMPRESSED_TAR_SUFFIXES,
    FILE_ARCHIVE_SUFFIXES,
    ArchiveEntry,
    ArchiveListing,
    printable,
    whole,
)
from nfbmr.data.decoding import DEFAULT_LIMITS, DecodeLimits
from nfbmr.data.listing import Tree
from nfbmr.data.ranges import open_file
from nfbmr.data.tar_archive import (
    TAR_DAMAGE,
    list_tar,
    read_compressed_tar_member,
    read_tar_member,
)
from nfbmr.data.zip_archive import list_zip, read_zip_member
from nfbmr.errors import DataError


def list_archive(uri: str) -> ArchiveListing:
    """List the pictures of a folder, prefix, tar, compressed tar or zip.

    A damaged tar gives the pictures before the damage and says so in ``problems``.

    Args:
        uri: a path, ``file://``, ``s3://`` …; what it is follows from the end of its name:
            ``.tar``, ``.tar.gz``, ``.tgz``, ``.zip``, else a folder or prefix.

    Returns:
        The same listing every time, as long as the archive stays the same.

    Raises:
        DataError: it is missing, cannot be read, or no picture can be listed.
    """
    address = _plain_address(uri)
    if address.lower().endswith(FILE_ARCHIVE_SUFFIXES):
        listing = _list_file(address)
    else:
        listing = _list_tree(address)
    if not listing.entries:
        reasons = listing.problems or [f"it has {listing.skipped_members} other files"]
        raise DataError(
            f"{address} holds no pictures that can be listed: {'; '.join(reasons)}. Expected "
            "jpg, png, bmp, tiff or webp in a folder, prefix, .tar, .tar.gz or .zip; archives "
            "inside a folder are given by their own names."
        )
    listing.keep_last_of_each_name()
    return listing


def holder(entry: ArchiveEntry) -> str:
    """The file whose version tells whether an entry is still what was listed."""
    in_file = entry.archive.lower().endswith(FILE_ARCHIVE_SUFFIXES)
    return entry.archive if in_file else entry.image_uri


def read_entry(entry: ArchiveEntry, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded bytes of one picture.

    One range request reads a member of a tar or zip. A compressed tar has to be unpacked from its
    beginning up to the member: many of its members are better read by one reader, in order.

    Args:
        entry: as ``list_archive`` gave it.
        limits: a picture of more bytes is not read.

    Raises:
        DataError: it cannot be read, is not what was listed, or is too large.
    """
    if entry.length is not None and entry.length > limits.max_bytes:
        raise DataError(
            f"{entry.image_uri} has {entry.length} bytes, more than the limit of "
            f"{limits.max_bytes}."
        )
    try:
        return _reader(entry.archive)(entry)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{entry.image_uri} does not exist (any more).") from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"{entry.image_uri} cannot be read: {type(error).__name__}: {error}."
        ) from error


def _plain_address(uri: str) -> str:
    """An absolute address: a plain path on a local disk, else the URI without a slash at its end.

    Raises:
        DataError: the protocol is unknown or needs a package that is not installed.
    """
    address = storage.absolute_uri(uri.rstrip("/") or "/")
    try:
        fs, path = url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise DataError(f"{uri} cannot be opened: {error}. Check its protocol.") from error
    return str(path) if isinstance(fs, LocalFileSystem) else address


def _list_tree(uri: str) -> ArchiveListing:
    fs, path = url_to_fs(uri)
    if fs.isfile(path):
        raise DataError(
            f"{uri} is a file: expected a folder, prefix, .tar, .tar.gz or .zip; give the folder "
            "it lies in."
        )
    listing = ArchiveListing()
    tree = Tree(uri)
    for name, length in tree.files.items():
        if name != printable(name):
            listing.problems.append(f"{uri}/{printable(name)} has a name that is not UTF-8")
        else:
            listing.add(ArchiveEntry(uri, name, None, length, tree.versions[name]))
    return listing


def _list_file(uri: str) -> ArchiveListing:
    listing = ArchiveListing()
    with open_file(uri) as file:
        listing.version = storage.file_version(uri)
        try:
            if uri.lower().endswith(".zip"):
                list_zip(uri, file, listing)
            elif uri.lower().endswith(COMPRESSED_TAR_SUFFIXES):
                with gzip.GzipFile(fileobj=file) as stream:
                    list_tar(uri, stream, None, listing)
            else:
                size = file.seek(0, 2)
                file.seek(0)
                list_tar(uri, file, size, listing)
        except (*TAR_DAMAGE, RecursionError) as error:
            listing.problems.append(
                f"{uri} is damaged after its first {len(listing.entries)} pictures: {error}"
            )
        except Exception as error:  # the storage failed, not the archive: no half plan
            raise DataError(
                f"Reading the archive {uri} broke off: {type(error).__name__}: {error}. Run the "
                "same command again."
            ) from error
    return listing


def _reader(archive: str) -> Callable[[ArchiveEntry], bytes]:
    lowered = archive.lower()
    if lowered.endswith(".zip"):
        return read_zip_member
    if lowered.endswith(COMPRESSED_TAR_SUFFIXES):
        return read_compressed_tar_member
    return read_tar_member if lowered.endswith(".tar") else _read_file


def _read_file(entry: ArchiveEntry) -> bytes:
    fs, root = storage.file_system(entry.archive)
    data: bytes = fs.cat_file(storage.join(root, entry.member))
    return data if entry.length is None else whole(entry, data)
