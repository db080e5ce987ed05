"""Archives read where they lie: which pictures they hold, and the bytes of each.

A picture in a folder or prefix is named by its own URI. A member of a tar or zip is named
``<archive>::<member>``. That name is for people and for joining tables: it is never opened as a
path, and what it stands for is said exactly by an entry's ``archive``, ``offset`` and ``length``.
Nothing is unpacked to disk, and a member's name never becomes a path.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.decoding import DEFAULT_LIMITS, DecodeLimits
from nfbmr.data.listing import Tree, is_picture
from nfbmr.errors import DataError

_COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz")
_FILE_ARCHIVE_SUFFIXES = (".tar", *_COMPRESSED_TAR_SUFFIXES, ".zip")
_TAR_BLOCK_BYTES = 512
_TAR_END_BYTES = 64 * 2**10
_TAR_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    ValueError,
    ArithmeticError,
)

_ZIP_HEADER = struct.Struct("<4s5H3I2H")
_ZIP_HEADER_SLACK_BYTES = 1024
_ZIP_DESCRIPTOR_BYTES = 16
_ZIP_ENCRYPTED, _ZIP_SIZES_FOLLOW = 0x1, 0x8
_ZIP64 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One picture in an archive.

    Attributes:
        archive: the folder, prefix, tar or zip it lies in; a plain absolute path on a local disk.
        member: its name in there.
        offset: where its bytes are found: of its data in a tar, of its data in the unpacked
            stream of a compressed tar, of its local header in a zip; None for a file of its own.
        length: of the encoded picture in bytes, where known.
    """

    archive: str
    member: str
    offset: int | None = None
    length: int | None = None

    @property
    def image_uri(self) -> str:
        """The picture's name: the file's own URI, or ``<archive>::<member>``."""
        if self.archive.lower().endswith(_FILE_ARCHIVE_SUFFIXES):
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
    """

    entries: list[ArchiveEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped_members: int = 0
    replaced_members: int = 0

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
    if address.lower().endswith(_FILE_ARCHIVE_SUFFIXES):
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


def _open(uri: str) -> BinaryIO:
    try:
        fs, path = url_to_fs(uri)
        return cast(BinaryIO, fs.open(path, "rb"))
    except FileNotFoundError as error:
        raise DataError(f"The archive {uri} does not exist: check the path.") from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"The archive {uri} cannot be opened: {type(error).__name__}: {error}. Check the "
            "address, and for object stores the credentials in the environment."
        ) from error


def _fetch(uri: str, start: int, end: int) -> bytes:
    """Bytes of a file by one range request; fewer where the file ends before."""
    if start >= end:
        return b""
    fs, path = url_to_fs(uri)
    data: bytes = fs.cat_file(path, start=start, end=end)
    return data


def _list_tree(uri: str) -> ArchiveListing:
    fs, path = url_to_fs(uri)
    if fs.isfile(path):
        raise DataError(
            f"{uri} is a file: expected a folder, prefix, .tar, .tar.gz or .zip; give the folder "
            "it lies in."
        )
    listing = ArchiveListing()
    for name, length in Tree(uri).files.items():
        if name != _printable(name):
            listing.problems.append(f"{uri}/{_printable(name)} has a name that is not UTF-8")
        else:
            listing.add(ArchiveEntry(uri, name, None, length))
    return listing


def _printable(name: str) -> str:
    """A name with its bytes that are not UTF-8 written as escapes; others as they are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _list_file(uri: str) -> ArchiveListing:
    listing = ArchiveListing()
    with _open(uri) as file:
        try:
            if uri.lower().endswith(".zip"):
                _list_zip(uri, file, listing)
            elif uri.lower().endswith(_COMPRESSED_TAR_SUFFIXES):
                with gzip.GzipFile(fileobj=file) as stream:
                    _list_tar(uri, stream, None, listing)
            else:
                size = file.seek(0, 2)
                file.seek(0)
                _list_tar(uri, file, size, listing)
        except (*_TAR_DAMAGE, RecursionError) as error:
            listing.problems.append(
                f"{uri} is damaged after its first {len(listing.entries)} pictures: {error}"
            )
        except Exception as error:  # the storage failed, not the archive: no half plan
            raise DataError(
                f"Reading the archive {uri} broke off: {type(error).__name__}: {error}. Run the "
                "same command again."
            ) from error
    return listing


def _list_tar(
    uri: str, stream: BinaryIO | gzip.GzipFile, size: int | None, listing: ArchiveListing
) -> None:
    """Follow the chain of headers; ``size`` is the stream's, where known without reading it."""
    pictures: dict[str, ArchiveEntry] = {}
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else tarfile remembers every header
            if tar.offset <= member.offset:
                raise tarfile.ReadError(f"the header at byte {member.offset} points backwards")
            if size is not None and member.offset_data + member.size > size:
                listing.problems.append(f"{uri} ends in the middle of {_printable(member.name)!r}")
                return
            _take_tar_member(uri, member, pictures, listing)
        end = tar.offset
    problem = _problem_at_end_of_tar(stream, end)
    if problem:
        listing.problems.append(f"{uri} {problem}, after {len(listing.entries)} pictures")


def _take_tar_member(
    uri: str, member: tarfile.TarInfo, pictures: dict[str, ArchiveEntry], listing: ArchiveListing
) -> None:
    name = _printable(member.name)
    entry = ArchiveEntry(uri, name, member.offset_data, member.size)
    if member.isdir():
        return
    if member.islnk() and is_picture(name):
        linked = pictures.get(member.linkname)
        if linked is None:
            listing.problems.append(
                f"{uri} has {name!r} as a link to {_printable(member.linkname)!r}, which is no "
                "picture before it"
            )
            return
        entry = ArchiveEntry(uri, name, linked.offset, linked.length)
    elif not member.isreg():
        listing.skipped_members += 1
        return
    elif member.issparse() and is_picture(name):
        listing.problems.append(f"{uri} has {name!r} as a sparse file, which cannot be read")
        return
    listing.add(entry)
    if is_picture(name):
        pictures[member.name] = entry


def _problem_at_end_of_tar(stream: BinaryIO | gzip.GzipFile, end: int) -> str:
    """What is wrong where the chain of headers ended; empty if nothing is.

    ``tarfile`` takes a damaged header for the end, so what lies there has to be looked at.
    """
    stream.seek(end)
    tail = stream.read(_TAR_END_BYTES)
    if len(tail) < _TAR_BLOCK_BYTES:
        return "has no mark at its end and may have been cut off"
    if any(tail[:_TAR_BLOCK_BYTES]):
        return f"is damaged at byte {end}, where a header is expected"
    if any(tail):
        return f"has more data behind the mark at its end (byte {end}); join archives by unpacking"
    return ""


def _list_zip(uri: str, file: BinaryIO, listing: ArchiveListing) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        listing.problems.append(f"it is no readable zip or was cut off ({error})")
        return
    for info in members:
        if not info.is_dir():
            name = _printable(info.filename)
            listing.add(ArchiveEntry(uri, name, info.header_offset, info.file_size))


def _reader(archive: str) -> Callable[[ArchiveEntry], bytes]:
    lowered = archive.lower()
    if lowered.endswith(".zip"):
        return _read_zip_member
    if lowered.endswith(_COMPRESSED_TAR_SUFFIXES):
        return _read_compressed_tar_member
    return _read_tar_member if lowered.endswith(".tar") else _read_file


def _read_file(entry: ArchiveEntry) -> bytes:
    fs, root = url_to_fs(entry.archive)
    data: bytes = fs.cat_file(storage.join(root, entry.member))
    return data


def _place(entry: ArchiveEntry) -> tuple[int, int]:
    if entry.offset is None or entry.length is None:
        raise DataError(f"{entry.image_uri} has no place in its archive: list the archive again.")
    return entry.offset, entry.length


def _read_tar_member(entry: ArchiveEntry) -> bytes:
    offset, length = _place(entry)
    return _whole(entry, _fetch(entry.archive, offset, offset + length))


def _read_compressed_tar_member(entry: ArchiveEntry) -> bytes:
    offset, length = _place(entry)
    with _open(entry.archive) as file, gzip.GzipFile(fileobj=file) as stream:
        stream.seek(offset)
        return _whole(entry, stream.read(length))


def _whole(entry: ArchiveEntry, data: bytes) -> bytes:
    if len(data) != entry.length:
        raise DataError(
            f"{entry.image_uri} has {len(data)} of its {entry.length} bytes: the archive was cut "
            "off, or changed since it was listed."
        )
    return data


def _read_zip_member(entry: ArchiveEntry) -> bytes:
    """Read the local header and the data behind it, usually by one request.

    The central directory is not needed again: it gave the place and the length.
    """
    start, length = _place(entry)
    guess = _ZIP_HEADER.size + _ZIP_HEADER_SLACK_BYTES + length + length // 8
    raw = _fetch(entry.archive, start, start + guess)
    if len(raw) < _ZIP_HEADER.size or not raw.startswith(b"PK\3\4"):
        raise DataError(
            f"{entry.image_uri} is not at byte {start} of its archive: the archive is damaged, or "
            "changed since it was listed."
        )
    _, _, flags, method, _, _, crc, packed, _, name, extra = _ZIP_HEADER.unpack_from(raw)
    if flags & _ZIP_ENCRYPTED:
        raise DataError(f"{entry.image_uri} is encrypted: pack it without a password.")
    body = _ZIP_HEADER.size + name + extra
    is_known = not flags & _ZIP_SIZES_FOLLOW and packed != _ZIP64
    needed = body + (packed if is_known else length + length // 8) + _ZIP_DESCRIPTOR_BYTES
    if len(raw) == guess < needed:  # else the archive ends here
        raw += _fetch(entry.archive, start + len(raw), start + needed)
    data, rest = _unpacked(entry, method, raw[body:], length)
    if flags & _ZIP_SIZES_FOLLOW:
        crc = int.from_bytes(rest.removeprefix(b"PK\7\x08")[:4], "little")
    if zlib.crc32(data) != crc:
        raise DataError(f"{entry.image_uri} is damaged: its checksum does not fit.")
    return data


def _unpacked(entry: ArchiveEntry, method: int, raw: bytes, length: int) -> tuple[bytes, bytes]:
    """The member's data, and the bytes that follow it."""
    if method == zipfile.ZIP_STORED:
        return _whole(entry, raw[:length]), raw[length:]
    if method != zipfile.ZIP_DEFLATED:
        raise DataError(
            f"{entry.image_uri} is packed by zip method {method}: only stored (0) and deflate (8) "
            "are read; pack it again."
        )
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    data = unpacker.decompress(raw, length + 1)
    return _whole(entry, data), unpacker.unused_data
