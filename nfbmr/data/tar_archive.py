"""Tar archives: the chain of headers, followed in many slices at once, and the bytes of a member.

A slice of an archive finds the first block in it that looks like a header and follows the chain
from there. What looks like a header may be a picture's content, so a slice's chain counts only
where the chain of the slice before it ends; where the two do not meet, one reader goes on from
there. Either way the listing is that of one reader from beginning to end.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.data.archive_entry import (
    ENTRIES,
    ArchiveEntry,
    ArchiveListing,
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

_PICTURE, _OTHER, _FOLDER, _LINK, _SPARSE = range(5)
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
        is_finished: whether the archive ends at ``next``.
        has_globals: whether a header in it changes how members of later slices are read.
    """

    rows: pa.Table
    start: int | None
    next: int
    problem: str = ""
    is_finished: bool = False
    has_globals: bool = False


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
                chain.problem = _problem_at_end(read, chain.next)
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
        chain.problem = f"is damaged at byte {chain.next}, where a header is expected ({error})"
    except TAR_DAMAGE as error:
        chain.problem = f"is damaged ({error})"
    chain.is_finished |= bool(chain.problem)
    chain.rows = rows.table()
    return chain


def _row(member: TarMember) -> tuple[int, int, str | None, str | None, int | None, int | None]:
    name = printable(member.name)
    if member.is_folder:
        return member.header, _FOLDER, None, None, None, None
    if not is_picture(name) or not (member.is_hard_link or member.is_file):
        return member.header, _OTHER, None, None, None, None
    if member.is_hard_link:
        return member.header, _LINK, name, printable(member.linkname), None, None
    kind = _SPARSE if member.is_sparse else _PICTURE
    return member.header, kind, name, None, member.data, member.size


def _problem_at_end(read: Read, end: int) -> str:
    """What is wrong where the chain of headers ended; empty if nothing is."""
    tail = read(end, _END_BYTES)
    if len(tail) < BLOCK_BYTES:
        return "has no mark at its end and may have been cut off"
    if any(tail):
        return f"has more data behind the mark at its end (byte {end}); join archives by unpacking"
    return ""


def follow_slice(read: Read, start: int, stop: int, size: int) -> Chain:
    """The chain of a slice, from the first block in it that may be a header."""
    first = start if start == 0 else _first_header(read, start, min(stop, size))
    if first is None:
        return Chain(CHAIN.empty_table(), None, start)
    return follow(read, first, stop, size)


def _first_header(read: Read, start: int, stop: int) -> int | None:
    for begin in range(start, stop, _SCAN_BYTES):
        # A header at the very end of a piece is whole: pieces are multiples of 512.
        found = find_header(read(begin, min(_SCAN_BYTES, stop - begin)), 0)
        if found is not None:
            return begin + found
    return None


def join_chains(
    uri: str,
    chains: Sequence[Chain],
    bounds: Sequence[tuple[int, int]],
    again: Callable[[int, int | None], Chain],
) -> ArchiveListing:
    """Join the chains of an archive's slices into its listing.

    Args:
        uri: of the archive.
        chains: one for each slice, in order.
        bounds: where the slices start and stop.
        again: ``again(start, stop)`` follows the chain by one reader.
    """
    if any(chain.has_globals for chain in chains):
        # What a global header says holds for all slices behind it.
        return _listing(uri, [again(0, None)])
    joined: list[Chain] = []
    expected = 0
    for found, (_, stop) in zip(chains, bounds, strict=True):
        if expected >= stop:  # a member that spans the whole slice
            continue
        chain = _from(found, expected) or again(expected, stop)
        joined.append(chain)
        expected = chain.next
        if chain.is_finished:
            return _listing(uri, joined)
    return _listing(uri, [*joined, again(expected, None)])


def _from(chain: Chain, expected: int) -> Chain | None:
    """The part of a chain from a place on, or None where the chain does not come by there."""
    if chain.start == expected:
        return chain
    rows = chain.rows.filter(pc.greater_equal(chain.rows.column("header"), expected))
    if len(rows) == 0 or rows.column("header")[0].as_py() != expected:
        return None
    return replace(chain, rows=rows, start=expected)


def _listing(uri: str, chains: Sequence[Chain]) -> ArchiveListing:
    rows = pa.concat_tables([chain.rows for chain in chains])
    counts = {
        value["values"].as_py(): value["counts"].as_py()
        for value in pc.value_counts(rows.column("kind"))
    }
    listing = ArchiveListing(uri, skipped_members=counts.get(_OTHER, 0))
    if counts.get(_LINK) or counts.get(_SPARSE):
        rows = _resolved(uri, rows, listing)
    pictures = rows.filter(pc.equal(rows.column("kind"), _PICTURE))
    listing.table = entries_table(
        pictures.column("member"), pictures.column("offset"), pictures.column("length")
    )
    if chains[-1].problem:
        count = len(pictures)
        listing.problems.append(f"{uri} {chains[-1].problem}, after {count} pictures")
    return listing


def _resolved(uri: str, rows: pa.Table, listing: ArchiveListing) -> pa.Table:
    """The rows with hard links as pictures of their own, and without sparse files."""
    pictures: dict[str, tuple[int, int]] = {}
    resolved = EntryRows(CHAIN)
    for row in rows.to_pylist():
        name = row["member"]
        if row["kind"] == _SPARSE:
            listing.problems.append(f"{uri} has {name!r} as a sparse file, which cannot be read")
            continue
        if row["kind"] == _LINK:
            if row["link"] not in pictures:
                listing.problems.append(
                    f"{uri} has {name!r} as a link to {row['link']!r}, which is no picture "
                    "before it"
                )
                continue
            row["kind"] = _PICTURE
            row["offset"], row["length"] = pictures[row["link"]]
        if row["kind"] == _PICTURE:
            pictures[name] = row["offset"], row["length"]
        resolved.add(list(row.values()))
    return resolved.table()


def entries_table(
    members: pa.ChunkedArray, offsets: pa.ChunkedArray, lengths: pa.ChunkedArray
) -> pa.Table:
    """Rows of ``ENTRIES`` of which no more is known than name and place."""
    count = len(members)
    unknown = [pa.nulls(count, ENTRIES.field(name).type) for name in ENTRIES.names[3:]]
    return pa.table([members, offsets, lengths, *unknown], schema=ENTRIES)


def read_tar_member(entry: ArchiveEntry) -> bytes:
    """One member by one range request."""
    offset, length = place(entry)
    return whole(entry, fetch(entry.archive, offset, offset + length, entry.version))
