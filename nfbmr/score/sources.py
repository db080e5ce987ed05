"""Listing what is to be scored, once, into a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import list_archive
from nfbmr.errors import DataError
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.plan import PICTURES


def list_sources(sources: Sequence[str], rule: CategoryRule) -> pa.Table:
    """List every picture of the sources once.

    What is damaged in an archive becomes a planned picture with a problem, so that it ends as a
    row with that error.

    Returns:
        Rows of ``PICTURES``, in the order of the sources; a picture that is in several of them
        stands where it came first.

    Raises:
        DataError: a source is missing or holds no picture, or no picture has a category.
    """
    seen: set[str] = set()
    tables = [_source_table(source, list_archive(source), rule, seen) for source in sources]
    pictures = pa.concat_tables(tables)
    if not any(chunk.true_count for chunk in _has_category(pictures).chunks):
        first = pictures.column("member")[0].as_py()
        raise DataError(
            f"None of the {len(pictures)} pictures has a category by {rule.pattern!r}, for example "
            f"{first!r}: give --category NAME, or a --category-pattern that fits."
        )
    return pictures


def _has_category(pictures: pa.Table) -> pa.ChunkedArray:
    return pa.compute.not_equal(pictures.column("category"), "")


def _source_table(
    source: str, listing: ArchiveListing, rule: CategoryRule, seen: set[str]
) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in PICTURES.names}

    def add(values: Iterable[object]) -> None:
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)

    missing = f"no category in its name by {rule.pattern!r}"
    for entry in listing.entries:
        uri = entry.image_uri
        if uri in seen:
            continue
        seen.add(uri)
        category = rule.category(entry.member) or ""
        version = entry.version or listing.version
        place = (entry.archive, entry.member, entry.offset, entry.length, version)
        add((uri, *place, category, None if category else missing))
    for number, text in enumerate(listing.problems):
        uri = f"{source}::#problem-{number}"
        if uri not in seen:
            seen.add(uri)
            add((uri, source, "", None, None, None, "", text))
    return pa.table(columns, schema=PICTURES)
