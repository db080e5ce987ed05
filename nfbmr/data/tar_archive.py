"""Tar archives: the chain of headers, followed in many slices at once, and the bytes of a member.

A slice of an archive finds the first block in it that looks like a header and follows the chain
from there; ``tar_joining`` says which of the chains count.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from dataclasses import dataclass

import pyarrow as pa

from nfbmr.data.archive_entry import (
    ArchiveEntry,
    EntryRows,
    place,
    printable,
    whole,
)
from nfbmr.data.picture_names import is_picture
from nfbmr.data.ranges import fetch
from nfbmr.data.tar_headers import (
    BLOCK_BYTES,
    Read,
    TarDamageError,
    TarMember,
    find_header,
    global_values,
    read_member,
)

_END_BYTES = 64 * 2**10
_SCAN_BYTES = 2 * 2**20
TAR_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    ValueError,
    ArithmeticError,
)
"""What reading a damaged tar raises."""

PICTURE, OTHER, FOLDER, LINK, SPARSE = range(5)
"""Kinds of members."""

CHAIN = pa.schema(
    [
        ("header", pa.int64()),
        ("kind", pa.int8()),
        ("member", pa.large_string()),
        ("link", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""One member of a chain of headers; only pictures keep their names."""


@dataclass
class Chain:
    """What a reader found from one place on.

    Attributes:
        rows: of ``CHAIN``.
        start: where its first member begins; None where no header was found.
        next: where the member behind its last one begins, or the archive's end.
        problem: why it stops before the end of its slice; empty if it does not.
        is_finished: whether the archive ends at ``next``, or is damaged there.
        has_globals: whether a header in it changes how members of later slices are read.
        damaged: the block that should be a header and is none.
        more: the first block behind the mark of the archive's end that is not all zeros.
    """

    rows: pa.Table
    start: int | None
    next: int
    problem: str = ""
    is_finished: bool = False
    has_globals: bool = False
    damaged: int | None = None
    more: int | None = None


def follow(read: Read, start: int, stop: int | None, size: int | None) -> Chain:
    """Follow the chain of headers.

    Args:
        read: of the archive.
        start: where a member begins.
        stop: members that begin here or later are left to others; None for none.
        size: of the archive, where it is known without reading it.
    """
    rows = EntryRows(CHAIN)
    chain = Chain(CHAIN.empty_table(), start, start)
    inherited: dict[str, str] = {}
    try:
        while stop is None or chain.next < stop:
            member = read_member(read, chain.next, inherited)
            if member is None:
                chain.is_finished = True
                chain.problem, chain.more = _problem_at_end(read, chain.next, size)
                break
            if size is not None and member.is_file and member.data + member.size > size:
                chain.problem = f"ends in the middle of {printable(member.name)!r}"
                break
            if member.is_global:
                chain.has_globals = True
                inherited = global_values(read, chain.next, inherited)
            rows.add(_row(member))
            chain.next = member.next
    except TarDamageError as error:
        chain.damaged = error.place
        chain.problem = f"is damaged at byte {chain.next}, where a header is expected ({error})"
    except TAR_DAMAGE as error:
        chain.damaged = chain.next
        chain.problem = f"is damaged ({error})"
    chain.is_finished |= bool(chain.problem)
    chain.rows = rows.table()
    return chain


def _row(member: TarMember) -> tuple[int, int, str | None, str | None, int | None, int | None]:
    name = printable(member.name)
    if member.is_folder:
        return member.header, FOLDER, None, None, None, None
    if not is_picture(name) or not (member.is_hard_link or member.is_file):
        return member.header, OTHER, None, None, None, None
    if member.is_hard_link:
        return member.header, LINK, name, printable(member.linkname), None, None
    kind = SPARSE if member.is_sparse else PICTURE
    return member.header, kind, name, None, member.data, member.size


def _problem_at_end(read: Read, end: int, size: int | None) -> tuple[str, int | None]:
    """What is wrong where the chain of headers ended, empty if nothing is; the data behind it."""
    if len(read(end, BLOCK_BYTES)) < BLOCK_BYTES:
        return "has no mark at its end and may have been cut off", None
    more = _data_behind_mark(read, end, size)
    if more is None:
        return "", None
    text = (
        f"has more data behind the mark at its end (byte {end}), as if several archives were "
        "joined or zeros written over this one"
    )
    return text, more


def _data_behind_mark(read: Read, end: int, size: int | None) -> int | None:
    """The first block that is not all zeros from a place on; not far from it in a stream."""
    while data := read(end, _END_BYTES):
        behind = data.lstrip(b"\0")
        if behind:
            return end + (len(data) - len(behind)) // BLOCK_BYTES * BLOCK_BYTES
        if size is None:
            return None
        end += len(data)
    return None


def follow_slice(read: Read, start: int, stop: int, size: int) -> Chain:
    """The chain of a slice, from the first block in it that may be a header."""
    first = start if start == 0 else first_header(read, start, min(stop, size))
    if first is None:
        return Chain(CHAIN.empty_table(), None, start)
    return follow(read, first, stop, size)


def first_header(read: Read, start: int, stop: int) -> int | None:
    """The first block from a place on, and before another, that may be a header.

    Args:
        read: of the archive.
        start: a multiple of 512.
        stop: at most the archive's size.
    """
    for begin in range(start, stop, _SCAN_BYTES):
        # A header at the very end of a piece is whole: pieces are multiples of 512.
        found = find_header(read(begin, min(_SCAN_BYTES, stop - begin)), 0)
        if found is not None:
            return begin + found
    return None


def read_tar_member(entry: ArchiveEntry) -> bytes:
    """One member by one range request."""
    offset, length = place(entry)
    return whole(entry, fetch(entry.archive, offset, offset + length, entry.version))
