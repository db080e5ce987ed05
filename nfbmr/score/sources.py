"""Listing what is to be scored, once, into a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import LISTING_THREADS, join_slices, listers_of
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.data.table_columns import USUAL_COLUMNS, TableColumns
from nfbmr.errors import DataError
from nfbmr.progress import Progress
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.plan import PICTURES, PlannedPicture, pictures_table

_SOURCES_SAID = 20


def list_sources(
    sources: Sequence[str],
    rule: CategoryRule,
    columns: TableColumns = USUAL_COLUMNS,
    keep: str | None = None,
    store: ListingStore | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """List every picture of the sources once, many slices of them at the same time.

    What is damaged in an archive becomes a planned picture with a problem, so that it ends as a
    row with that error.

    Args:
        sources: prefixes, archives, manifests, and patterns of them.
        rule: says the category of a picture.
        columns: of Parquet files and manifests.
        keep: the folder for seek indexes of compressed tars.
        store: keeps finished slices, so that a listing that was cut off goes on.
        progress: where it says what each source holds.

    Returns:
        Rows of ``PICTURES``, in the order of the sources; a picture that is in several of them
        stands where it came first.

    Raises:
        DataError: a source is missing or holds no picture, or no picture has a category.
    """
    store = store or ListingStore(None)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        found = pool.map(lambda source: listers_of(source, keep, columns), sources)
        listers = _each_archive_once(itertools.chain.from_iterable(found))
        listings = _slices(listers, store, pool)
        joined = _joined(listers, listings, progress)
        return pictures_of(joined, rule)


def _joined(
    listers: Sequence[Lister], slices: Sequence[list[SliceListing]], progress: Progress | None
) -> Iterator[ArchiveListing]:
    for number, (lister, found) in enumerate(zip(listers, slices, strict=True)):
        listing = join_slices(lister, found)
        found.clear()
        if progress is not None and number < _SOURCES_SAID:
            progress.say(_description(listing))
        yield listing


def pictures_of(listings: Iterable[ArchiveListing], rule: CategoryRule) -> pa.Table:
    """The pictures of listings as a plan takes them, see ``list_sources``.

    Raises:
        DataError: no picture has a category.
    """
    pictures = _each_once(pa.concat_tables([_pictures(listing, rule) for listing in listings]))
    if not pc.any(pc.not_equal(pictures.column("category"), "")).as_py():
        first = pictures.column("member")[0].as_py()
        raise DataError(
            f"None of the {len(pictures)} pictures has a category by {rule.pattern!r}, for example "
            f"{first!r}: give --category NAME, or a --category-pattern that fits."
        )
    return pictures


def _each_archive_once(listers: Iterable[Lister]) -> list[Lister]:
    """A source may be named twice, and a pattern may match what is also named itself."""
    kept: dict[tuple[str, tuple[str, ...]], Lister] = {}
    for lister in listers:
        kept.setdefault((lister.archive, tuple(lister.slices)), lister)
    return list(kept.values())


def _slices(
    listers: Sequence[Lister], store: ListingStore, pool: ThreadPoolExecutor
) -> list[list[SliceListing]]:
    """The slices of every source, listed as threads are free."""
    waiting = [
        [pool.submit(store.list_slice, lister, name) for name in lister.slices]
        for lister in listers
    ]
    try:
        return [[future.result() for future in futures] for futures in waiting]
    except BaseException:
        for futures in waiting:
            for future in futures:
                future.cancel()
        raise


def _description(listing: ArchiveListing) -> str:
    parts = [f"{len(listing.table)} pictures"]
    if listing.skipped_members:
        parts.append(f"{listing.skipped_members} other files")
    if listing.replaced_members:
        parts.append(f"{listing.replaced_members} replaced by later ones of the same name")
    if listing.problems:
        parts.append(f"{len(listing.problems)} damaged places, each an error row")
    return f"  {listing.archive}: {', '.join(parts)}"


def _pictures(listing: ArchiveListing, rule: CategoryRule) -> pa.Table:
    """A listing as a plan takes it."""
    table = listing.table
    count = len(table)
    category = pc.fill_null(_categories(listing, rule), "")
    missing = f"no category in its name by {rule.pattern!r}"
    problem = pc.if_else(pc.equal(category, ""), missing, pa.scalar(None, pa.string()))
    columns = {
        "image_uri": listing.image_uris(),
        "archive": pa.repeat(listing.archive, count),
        "member": table.column("member"),
        "offset": table.column("offset"),
        "length": table.column("length"),
        "version": pc.fill_null(table.column("version"), listing.version)
        if listing.version is not None
        else table.column("version"),
        "lookup": pa.repeat(pa.scalar(listing.lookup, pa.string()), count),
        "category": category,
        "captured_at": table.column("captured_at"),
        "problem": problem,
    }
    planned = pa.table([columns[name] for name in PICTURES.names], names=PICTURES.names)
    return pa.concat_tables([planned.cast(PICTURES), _problems(listing)])


def _categories(listing: ArchiveListing, rule: CategoryRule) -> pa.ChunkedArray:
    """The one category for all, else that of a column, else that of the name."""
    names = listing.category_names
    if rule.fixed is not None:
        return rule.categories(names)
    known = listing.table.column("category")
    return (
        rule.categories(names)
        if known.null_count == len(known)
        else pc.coalesce(known, rule.categories(names))
    )


def _problems(listing: ArchiveListing) -> pa.Table:
    return pictures_table(
        PlannedPicture(
            image_uri=f"{listing.archive}::#problem-{number}",
            archive=listing.archive,
            member="",
            offset=None,
            length=None,
            version=None,
            category="",
            problem=text,
        )
        for number, text in enumerate(listing.problems)
    )


def _each_once(pictures: pa.Table) -> pa.Table:
    """The pictures without those that came before under the same name."""
    uris = pictures.column("image_uri")
    if pc.count_distinct(uris).as_py() == len(uris):
        return pictures
    rows = pa.table({"uri": uris, "row": pa.array(range(len(uris)))})
    first = rows.group_by("uri").aggregate([("row", "min")]).column("row_min")
    return pictures.take(first.take(pc.sort_indices(first)))
