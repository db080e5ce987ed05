"""Tar archives: the chain of headers, and the bytes of a member."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import BinaryIO

from nfbmr.data.archive_entry import ArchiveEntry, ArchiveListing, place, printable, whole
from nfbmr.data.listing import is_picture
from nfbmr.data.ranges import fetch_range, open_file

_BLOCK_BYTES = 512
_END_BYTES = 64 * 2**10
TAR_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    ValueError,
    ArithmeticError,
)
"""What reading a damaged tar raises."""


def list_tar(
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
                listing.problems.append(f"{uri} ends in the middle of {printable(member.name)!r}")
                return
            _take_member(uri, member, pictures, listing)
        end = tar.offset
    problem = _problem_at_end(stream, end)
    if problem:
        listing.problems.append(f"{uri} {problem}, after {len(listing.entries)} pictures")


def _take_member(
    uri: str, member: tarfile.TarInfo, pictures: dict[str, ArchiveEntry], listing: ArchiveListing
) -> None:
    name = printable(member.name)
    entry = ArchiveEntry(uri, name, member.offset_data, member.size)
    if member.isdir():
        return
    if member.islnk() and is_picture(name):
        linked = pictures.get(member.linkname)
        if linked is None:
            listing.problems.append(
                f"{uri} has {name!r} as a link to {printable(member.linkname)!r}, which is no "
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


def _problem_at_end(stream: BinaryIO | gzip.GzipFile, end: int) -> str:
    """What is wrong where the chain of headers ended; empty if nothing is.

    ``tarfile`` takes a damaged header for the end, so what lies there has to be looked at.
    """
    stream.seek(end)
    tail = stream.read(_END_BYTES)
    if len(tail) < _BLOCK_BYTES:
        return "has no mark at its end and may have been cut off"
    if any(tail[:_BLOCK_BYTES]):
        return f"is damaged at byte {end}, where a header is expected"
    if any(tail):
        return f"has more data behind the mark at its end (byte {end}); join archives by unpacking"
    return ""


def read_tar_member(entry: ArchiveEntry) -> bytes:
    """One member by one range request."""
    offset, length = place(entry)
    return whole(entry, fetch_range(entry.archive, offset, offset + length))


def read_compressed_tar_member(entry: ArchiveEntry) -> bytes:
    """One member by unpacking the archive from its beginning."""
    offset, length = place(entry)
    with open_file(entry.archive) as file, gzip.GzipFile(fileobj=file) as stream:
        stream.seek(offset)
        return whole(entry, stream.read(length))
