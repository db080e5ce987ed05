"""The chains of a tar's slices, joined into the listing that one reader would make.

What looks like a header may be a picture's content, so a slice's chain counts only where the chain
of the slice before it ends; where the two do not meet, one reader goes on from there.

Behind a damaged header no chain is certain. One counts there if it is the next that reaches the
archive's end, where a picture's content does not lead, or if it does so over other headers that are
damaged but can still be made out. First comes the place that the damaged header's own size names,
then whatever looks like a header behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.data.archive_entry import ENTRIES, ArchiveListing, EntryRows
from nfbmr.data.tar_archive import (
    CHAIN,
    LINK,
    OTHER,
    PICTURE,
    SPARSE,
    Chain,
    first_header,
    follow,
)
from nfbmr.data.tar_headers import BLOCK_BYTES, Read, looks_like_header
from nfbmr.data.tar_remains import behind_data, was_extended, was_header

_END_MARK_BYTES = 2 * BLOCK_BYTES


def join_chains(
    uri: str,
    chains: Sequence[Chain],
    bounds: Sequence[tuple[int, int]],
    open_reader: Callable[[], Read],
) -> ArchiveListing:
    """Join the chains of an archive's slices into its listing.

    Args:
        uri: of the archive.
        chains: one for each slice, in order.
        bounds: where the slices start and stop; the last stops where the archive ends.
        open_reader: opens a reader of the archive.
    """
    size = bounds[-1][1] if bounds else 0
    if any(chain.has_globals for chain in chains):
        # What a global header says holds for all slices behind it.
        return listing_of(uri, [follow(open_reader(), 0, None, size)])
    slices = _Slices(chains, bounds, size, open_reader)
    runs = _runs(slices)
    gaps = [
        f"{uri} {run.last.problem}: nothing from there to byte {following.start} could be listed"
        for run, following in pairwise(runs)
    ]
    return listing_of(uri, [chain for run in runs for chain in run.chains], gaps)


@dataclass(frozen=True)
class _Slices:
    """An archive's slices.

    Attributes:
        chains: that were found in them.
        bounds: where they start and stop.
        size: of the archive in bytes.
        open_reader: opens a reader of the archive.
    """

    chains: Sequence[Chain]
    bounds: Sequence[tuple[int, int]]
    size: int
    open_reader: Callable[[], Read]

    def chains_from(self, start: int) -> list[Chain]:
        """The chain from a place to where it ends or breaks, in pieces."""
        joined: list[Chain] = []
        expected = start
        for found, (_, stop) in zip(self.chains, self.bounds, strict=True):
            if expected >= stop:  # a member that spans the whole slice
                continue
            chain = _from(found, expected) or self._follow(expected, stop)
            joined.append(chain)
            expected = chain.next
            if chain.is_finished:
                return joined
            if chain.has_globals:  # which the slices behind it do not know of
                return [*joined[:-1], self._follow(chain.start or 0, None)]
        return [*joined, self._follow(expected, None)]

    def _follow(self, start: int, stop: int | None) -> Chain:
        return follow(self.open_reader(), start, stop, self.size)

    def header_from(self, place: int) -> int | None:
        """The first place from one on where a header may be."""
        for found, (begin, stop) in zip(self.chains, self.bounds, strict=True):
            if place >= stop or found.start is None:
                continue
            if found.start >= place:
                return found.start
            header = first_header(self.open_reader(), max(begin, place), stop)
            if header is not None:
                return header
        return None


@dataclass(frozen=True)
class _Run:
    """A chain from one place to where it ends or breaks.

    Attributes:
        chains: its pieces.
        start: where its first member begins.
        is_named: whether something before it says that it begins there, and it was not searched.
    """

    chains: list[Chain]
    start: int
    is_named: bool = True

    @property
    def last(self) -> Chain:
        """Its last piece."""
        return self.chains[-1]

    def reaches_end(self, size: int) -> bool:
        """Whether it ends where the archive does, if only without a mark."""
        last = self.last
        is_broken = last.damaged is not None or last.more is not None
        return not last.problem or (not is_broken and last.next == size)

    @property
    def broken_at(self) -> int:
        """Where it ends or breaks."""
        return self.last.next if self.last.damaged is None else self.last.damaged


def _from(chain: Chain, expected: int) -> Chain | None:
    """The part of a chain from a place on, or None where the chain does not come by there."""
    if chain.start == expected:
        return chain
    rows = chain.rows.filter(pc.greater_equal(chain.rows.column("header"), expected))
    if len(rows) == 0 or rows.column("header")[0].as_py() != expected:
        return None
    return replace(chain, rows=rows, start=expected)


def _runs(slices: _Slices) -> list[_Run]:
    """The chain from the archive's beginning, and those behind damaged places if they count."""
    read = slices.open_reader()
    first = _Run(slices.chains_from(0), 0)
    runs = [first]
    while not runs[-1].reaches_end(slices.size):
        following = _run_behind(slices, read, runs[-1])
        if following is None:
            return [first]
        runs.append(following)
    return runs


def _run_behind(slices: _Slices, read: Read, run: _Run) -> _Run | None:
    """The run that goes on where one broke, or None: it was cut off, or nothing can be found."""
    last = run.last
    if last.damaged is None and last.more is None:
        return None
    for place in _named_places(slices, read, run):
        named = _Run(slices.chains_from(place), place)
        if _goes_on(slices, read, named):
            return _without_renamed(read, run.broken_at, named)
    place_or_none = slices.header_from(run.broken_at + BLOCK_BYTES)
    while place_or_none is not None:
        found = _Run(slices.chains_from(place_or_none), place_or_none, is_named=False)
        if _goes_on(slices, read, found):
            return _without_renamed(read, run.broken_at, found)
        place_or_none = slices.header_from(found.broken_at + BLOCK_BYTES)
    return None


def _named_places(slices: _Slices, read: Read, run: _Run) -> Iterator[int]:
    last = run.last
    if last.damaged is not None:
        place = behind_data(read(last.damaged, BLOCK_BYTES), last.damaged)
        if place is not None and place <= slices.size:
            yield place
    elif _is_joined(read, run) and last.more is not None:
        yield last.more


def _goes_on(slices: _Slices, read: Read, run: _Run) -> bool:
    if run.reaches_end(slices.size):
        return True
    damaged = run.last.damaged
    if damaged is not None:
        return was_header(read(damaged, BLOCK_BYTES))
    return _is_joined(read, run)


def _is_joined(read: Read, run: _Run) -> bool:
    """Whether another archive begins behind the mark at the end of this one.

    A single block of zeros is no mark: a header may have been there. A run that was searched may
    be an archive in a picture, which ends like this, too.
    """
    more = run.last.more
    return (
        run.is_named
        and more is not None
        and more - run.last.next >= _END_MARK_BYTES
        and looks_like_header(read(more, BLOCK_BYTES))
    )


def _without_renamed(read: Read, damaged: int, run: _Run) -> _Run:
    """The run without a first member whose real name or size stood in a damaged header."""
    if not was_extended(read, damaged):
        return run
    first = run.chains[0]
    rows = first.rows.slice(1)
    start = rows.column("header")[0].as_py() if len(rows) else first.next
    chains = [replace(first, rows=rows, start=start), *run.chains[1:]]
    return _Run(chains, start, run.is_named)


def listing_of(uri: str, chains: Sequence[Chain], gaps: Sequence[str] = ()) -> ArchiveListing:
    """The listing of chains that follow one another.

    Args:
        uri: of the archive.
        chains: in order.
        gaps: what is to be said of places between them.
    """
    rows = pa.concat_tables([chain.rows for chain in chains])
    counts = {
        value["values"].as_py(): value["counts"].as_py()
        for value in pc.value_counts(rows.column("kind"))
    }
    listing = ArchiveListing(uri, skipped_members=counts.get(OTHER, 0))
    if counts.get(LINK) or counts.get(SPARSE):
        rows = _resolved(uri, rows, listing)
    pictures = rows.filter(pc.equal(rows.column("kind"), PICTURE))
    listing.table = _entries_table(
        pictures.column("member"), pictures.column("offset"), pictures.column("length")
    )
    listing.problems += gaps
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
        if row["kind"] == SPARSE:
            listing.problems.append(f"{uri} has {name!r} as a sparse file, which cannot be read")
            continue
        if row["kind"] == LINK:
            if row["link"] not in pictures:
                listing.problems.append(
                    f"{uri} has {name!r} as a link to {row['link']!r}, which is no picture "
                    "before it"
                )
                continue
            row["kind"] = PICTURE
            row["offset"], row["length"] = pictures[row["link"]]
        if row["kind"] == PICTURE:
            pictures[name] = row["offset"], row["length"]
        resolved.add(list(row.values()))
    return resolved.table()


def _entries_table(
    members: pa.ChunkedArray, offsets: pa.ChunkedArray, lengths: pa.ChunkedArray
) -> pa.Table:
    """Rows of ``ENTRIES`` of which no more is known than name and place."""
    count = len(members)
    unknown = [pa.nulls(count, ENTRIES.field(name).type) for name in ENTRIES.names[3:]]
    return pa.table([members, offsets, lengths, *unknown], schema=ENTRIES)
