"""Slices of many sources, listed at the same time, and let go in chunks of bounded size.

Folders and prefixes come in pieces: each of their slices stands for itself. An archive comes whole,
because what a slice of it means may depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

from nfbmr.data.archive_entry import FILE_ARCHIVE_SUFFIXES, ArchiveListing
from nfbmr.data.archives import check_any_pictures, join_slices
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.progress import Progress
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.slice_arrivals import Arrivals

CHUNK_PICTURES = 2_000_000
"""So many are planned at once: about 1.5 GB of memory while their units are cut."""

_SOURCES_SAID = 20
"""Of so many it is said what they hold; of those that are damaged always."""

_Place = tuple[int, int]
"""A slice's number, and which of the slices as which it goes on."""


def may_overlap(listers: Sequence[Lister]) -> bool:
    """Whether a picture may be listed twice: by a manifest, or by two folders in one another."""
    if any(lister.may_repeat for lister in listers):
        return True
    folders = sorted(
        f"{lister.archive.rstrip('/')}/"
        for lister in listers
        if not lister.archive.lower().endswith(FILE_ARCHIVE_SUFFIXES)
    )
    return any(inner.startswith(outer) for outer, inner in pairwise(folders))


def chunks_of_listings(
    listers: Sequence[Lister],
    store: ListingStore,
    pool: ThreadPoolExecutor,
    progress: Progress | None = None,
    chunk_pictures: int | None = None,
) -> Iterator[list[ArchiveListing]]:
    """Listings that together hold about so many pictures, in the order of the sources.

    Where a picture may be listed twice, what arrives is let go in the order of the sources and of
    their slices: the first of its places is the same one in every run.

    Args:
        listers: of the sources.
        store: keeps finished slices.
        pool: lists them.
        progress: where it says what each source holds.
        chunk_pictures: after so many a chunk is let go; by default ``CHUNK_PICTURES``.

    Raises:
        DataError: no source holds a picture, or the storage failed.
    """
    limit = CHUNK_PICTURES if chunk_pictures is None else chunk_pictures
    sources = [_Source(lister) for lister in listers]
    ready = said = 0
    with Arrivals(list(listers), store.list_slice, pool) as arrivals:
        slices = arrivals.in_order() if may_overlap(listers) else arrivals.as_they_come()
        for place, listing in slices:
            source, number, part = place
            ready += sources[source].take((number, part), listing)
            if ready >= limit:
                yield from _in_rows(
                    [source.release() for source in sources if source.ready_pictures()], limit
                )
                said = _say(sources, said, progress)
                ready = 0
    yield from _in_rows([source.release() for source in sources if not source.is_done], limit)
    _say(sources, said, progress)
    _check(sources, progress)


def _in_rows(listings: Sequence[ArchiveListing], limit: int) -> Iterator[list[ArchiveListing]]:
    """The listings in order; one of more rows than the limit, as of a huge archive, in pieces."""
    together: list[ArchiveListing] = []
    for listing in listings:
        if len(listing.table) <= limit:
            together.append(listing)
            continue
        if together:
            yield together
            together = []
        for start in range(0, len(listing.table), limit):
            rows = listing.table.slice(start, limit)
            problems = listing.problems if start == 0 else []
            yield [replace(listing, table=rows, problems=problems)]
    if together or not listings:
        yield together


def _check(sources: Sequence[_Source], progress: Progress | None) -> None:
    """Warn of sources without pictures; one empty archive of a year does not stop the others.

    Raises:
        DataError: all of them are empty.
    """
    empty = [source for source in sources if not source.pictures]
    if len(empty) == len(sources):
        for source in sources:
            check_any_pictures(
                source.lister.archive, source.pictures, source.problems, source.skipped
            )
    for source in empty:
        if progress is not None:
            progress.say(f"warning: {source.lister.archive} holds no pictures that can be listed")


@dataclass
class _Source:
    """What is known of one source.

    Attributes:
        lister: lists it.
        found: slices that are listed and not yet let go, by their place.
        outstanding: how many slices there are still to come.
        rows: of the slices in ``found``.
        pictures: that were let go.
        skipped: other files; likewise.
        replaced: pictures that others replace; likewise.
        problems: likewise.
        is_done: whether all of it was let go.
    """

    lister: Lister
    found: dict[_Place, SliceListing] = field(default_factory=dict)
    outstanding: int = 0
    rows: int = 0
    pictures: int = 0
    skipped: int = 0
    replaced: int = 0
    problems: list[str] = field(default_factory=list)
    is_done: bool = False

    def __post_init__(self) -> None:
        self.outstanding = len(self.lister.slices)

    def take(self, place: _Place, listing: SliceListing) -> int:
        """Keep what was listed; returns how many pictures more could be let go."""
        before = self.ready_pictures()
        self.found[place] = listing
        self.rows += len(listing.table)
        self.outstanding += 0 if listing.goes_on_as else -1
        return self.ready_pictures() - before

    def ready_pictures(self) -> int:
        """How many could be let go now."""
        return self.rows if self.lister.comes_in_pieces or not self.outstanding else 0

    def release(self) -> ArchiveListing:
        """What is there, joined, and let go."""
        slices = [self.found[place] for place in sorted(self.found)]
        self.found.clear()
        self.rows = 0
        listing = join_slices(self.lister, slices)
        listing.problems_before = len(self.problems)
        self.pictures += len(listing.table)
        self.skipped += listing.skipped_members
        self.replaced += listing.replaced_members
        self.problems += listing.problems
        self.is_done = not self.outstanding
        return listing

    def description(self) -> str:
        """For people."""
        parts = [f"{self.pictures} pictures"]
        if self.skipped:
            parts.append(f"{self.skipped} other files")
        if self.replaced:
            parts.append(f"{self.replaced} replaced by later ones of the same name")
        if self.problems:
            parts.append(f"{len(self.problems)} damaged places, each an error row")
        return f"  {self.lister.archive}: {', '.join(parts)}"


def _say(sources: Sequence[_Source], said: int, progress: Progress | None) -> int:
    """Say what the sources hold that are at their end, in order; returns how many those are."""
    while said < len(sources) and sources[said].is_done:
        if progress is not None and (said < _SOURCES_SAID or sources[said].problems):
            progress.say(sources[said].description())
        said += 1
    return said
