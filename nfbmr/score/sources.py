"""Listing what is to be scored, once, into a table."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import LISTING_THREADS, listers_of
from nfbmr.data.lister import Lister
from nfbmr.data.table_columns import USUAL_COLUMNS, TableColumns
from nfbmr.errors import DataError
from nfbmr.progress import Progress
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.listing_stream import chunks_of_listings, may_overlap
from nfbmr.score.plan import PICTURES, PlannedPicture, pictures_table
from nfbmr.score.seen_names import SeenNames


def list_sources(
    sources: Sequence[str],
    rule: CategoryRule,
    columns: TableColumns = USUAL_COLUMNS,
    keep: str | None = None,
    store: ListingStore | None = None,
    progress: Progress | None = None,
    chunk_pictures: int | None = None,
) -> Iterator[pa.Table]:
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
        chunk_pictures: see ``listing_stream.chunks_of_listings``.

    Yields:
        Rows of ``PICTURES``, one table or, of many millions of pictures, several; in each, in the
        order of the sources. A picture that is in several of them stands where it came first.

    Raises:
        DataError: a source is missing or holds no picture, or no picture has a category.
    """
    store = store or ListingStore(None)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        is_only = len(sources) == 1
        found = pool.map(lambda source: listers_of(source, keep, columns, is_only), sources)
        listers = _each_archive_once(itertools.chain.from_iterable(found))
        chunks = chunks_of_listings(listers, store, pool, progress, chunk_pictures)
        tables: Iterator[pa.Table] = (pictures_of(listings, rule) for listings in chunks)
        if may_overlap(listers):
            tables = _each_once_in_all(tables)
        yield from _with_a_category(tables, rule)


def _with_a_category(tables: Iterable[pa.Table], rule: CategoryRule) -> Iterator[pa.Table]:
    """The tables, if one of them has a picture whose category is known.

    Raises:
        DataError: none has.
    """
    count, known, first = 0, False, None
    for table in tables:
        count += len(table)
        known = known or bool(pc.any(pc.not_equal(table.column("category"), "")).as_py())
        first = first or (table.column("member")[0].as_py() if len(table) else None)
        yield table
    if not known:
        raise DataError(
            f"None of the {count} pictures has a category by {rule.pattern!r}, for example "
            f"{first!r}: give --category NAME, or a --category-pattern that fits."
        )


def pictures_of(listings: Iterable[ArchiveListing], rule: CategoryRule) -> pa.Table:
    """The pictures of listings as a plan takes them, each once, see ``list_sources``."""
    tables = [_pictures(listing, rule) for listing in listings]
    return _each_once(pa.concat_tables([PICTURES.empty_table(), *tables]))


def _each_once_in_all(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables without the pictures that an earlier one has."""
    seen = SeenNames()
    for table in tables:
        yield table.filter(seen.are_new(table.column("image_uri")))


def _each_archive_once(listers: Iterable[Lister]) -> list[Lister]:
    """A source may be named twice, and a pattern may match what is also named itself."""
    kept: dict[tuple[tuple[str | None, ...], ...], Lister] = {}
    for lister in listers:
        key = tuple(tuple(lister.identity(name)) for name in lister.slices)
        kept.setdefault(key or ((lister.archive,),), lister)
    return list(kept.values())


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
            image_uri=f"{listing.archive}::#problem-{number}-{_short_digest(text)}",
            archive=listing.archive,
            member="",
            offset=None,
            length=None,
            version=None,
            category="",
            problem=text,
        )
        for number, text in enumerate(listing.problems, listing.problems_before)
    )


def _short_digest(text: str) -> str:
    """Two sources below one root both count their problems from 0."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()


def _each_once(pictures: pa.Table) -> pa.Table:
    """The pictures without those that came before under the same name."""
    uris = pictures.column("image_uri")
    if pc.count_distinct(uris).as_py() == len(uris):
        return pictures
    rows = pa.table({"uri": uris, "row": pa.array(range(len(uris)))})
    first = rows.group_by("uri").aggregate([("row", "min")]).column("row_min")
    return pictures.take(first.take(pc.sort_indices(first)))
