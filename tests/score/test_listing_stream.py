"""Chunks of listings are bounded, and together they are what one listing would be."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.archive_entry import ENTRIES, ArchiveListing, EntryRows
from nfbmr.data.archives import lister_of
from nfbmr.data.lister import GOES_ON_AS, Lister, SliceListing
from nfbmr.errors import DataError
from nfbmr.progress import Progress
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.listing_stream import chunks_of_listings, may_overlap

SLICE = 3


class Numbers(Lister):
    """Lists numbered pictures, a few at a time: in a folder, or in an archive."""

    def __init__(self, archive: str, counts: Sequence[int]) -> None:
        super().__init__(archive, None)
        self.counts = counts
        self.slices = [f"{number} 0" for number in range(len(counts))]
        self.comes_in_pieces = not archive.endswith(".tar")

    def list_slice(self, name: str) -> SliceListing:
        number, start = map(int, name.split())
        rows = EntryRows(ENTRIES)
        end = min(start + SLICE, self.counts[number])
        for i in range(start, end):
            rows.add((f"c/{number}-{i}.png", None, 1, None, None, None))
        goes_on = end < self.counts[number]
        return SliceListing(rows.table(), {GOES_ON_AS: f"{number} {end}"} if goes_on else {})

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        rows = EntryRows(ENTRIES)
        for listing in listings:
            for row in listing.table.to_pylist():
                rows.add(list(row.values()))
        return ArchiveListing(self.archive, rows.table(), [f"damage of {self.archive}"])


class Whole(Numbers):
    """Of which nothing is damaged."""

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        return replace(super().join(listings), problems=[])


@given(
    sources=st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 10), min_size=1, max_size=4)),
        min_size=1,
        max_size=5,
    ),
    chunk=st.integers(1, 20),
)
def test_every_picture_is_in_one_chunk(sources: list[tuple[bool, list[int]]], chunk: int) -> None:
    listers: list[Lister] = [
        Numbers(f"/{number}{'' if is_folder else '.tar'}", [1, *counts])
        for number, (is_folder, counts) in enumerate(sources)
    ]
    expected = {
        f"{lister.archive} c/{number}-{i}.png"
        for lister in listers
        for number, count in enumerate(lister.counts)  # type: ignore[attr-defined]
        for i in range(count)
    }
    found: list[str] = []
    sizes: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        for listings in chunks_of_listings(listers, ListingStore(None), pool, chunk_pictures=chunk):
            names = [f"{each.archive} {e.member}" for each in listings for e in each.entries]
            found += names
            sizes.append(len(names))
    assert sorted(found) == sorted(expected)
    # Sources that were ready at the same time come together, each of at most a chunk.
    assert max(sizes) <= (chunk + SLICE) * len(sources)
    if chunk > len(expected):
        assert len(sizes) == 1


def test_an_empty_source_is_a_warning_and_nothing_but_empty_ones_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listers = [Numbers("/b.tar", []), Numbers("/a", [2]), Numbers("/c", [0, 0])]
    with ThreadPoolExecutor(4) as pool:
        chunks = chunks_of_listings(listers, ListingStore(None), pool, Progress(), 1)
        assert sum(len(listing.table) for chunk in chunks for listing in chunk) == 2
    said = capsys.readouterr()
    assert (said.out + said.err).count("holds no pictures that can be listed") == 2
    del listers[1]
    with ThreadPoolExecutor(4) as pool, pytest.raises(DataError, match=r"/b.tar holds no pictures"):
        list(chunks_of_listings(listers, ListingStore(None), pool, chunk_pictures=1))


def test_of_many_sources_the_damaged_ones_are_always_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``Numbers`` are damaged, ``Whole`` are not."""
    listers: list[Lister] = [
        (Numbers if number == 30 else Whole)(f"/{number}.tar", [1]) for number in range(40)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(chunks_of_listings(listers, ListingStore(None), pool, Progress()))
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if ".tar: 1 pictures" in line]
    assert len(lines) == 21
    assert "/30.tar: 1 pictures, 1 damaged places, each an error row" in lines[-1]


def test_it_is_known_where_a_picture_may_be_twice(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "inner"
    for folder in (inner, tmp_path / "ab"):
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"x")
    (tmp_path / "m.csv").write_text("uri\na/inner/1.png\n")
    folders = [lister_of(str(tmp_path / name)) for name in ("a", "ab")]
    assert not may_overlap(folders)
    assert may_overlap([*folders, lister_of(str(inner))])
    assert may_overlap([lister_of(str(tmp_path / "m.csv"))])
    nested = [Numbers("/x", [5]), Numbers("/x/y", [5]), Numbers("/x/y.tar", [9])]
    assert may_overlap(nested)
    assert not may_overlap([nested[0], nested[2]])


class Late(Numbers):
    """Whose first slices take longest, so that those behind them are there before."""

    def list_slice(self, name: str) -> SliceListing:
        number, start = map(int, name.split())
        time.sleep(0.002 * (len(self.counts) - number) if start == 0 else 0.0)
        return super().list_slice(name)


@given(
    counts=st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=4), min_size=2, max_size=4),
    has_archive=st.booleans(),
    chunk=st.integers(1, 12),
)
@settings(max_examples=30, deadline=None)
def test_where_a_picture_may_be_twice_all_come_in_order(
    counts: list[list[int]], has_archive: bool, chunk: int
) -> None:
    listers: list[Lister] = [Late("/x", [1, *counts[0]])]
    listers += [Late(f"/x/{number}", own) for number, own in enumerate(counts[1:])]
    listers += [Late("/x/z.tar", [3, 4])] if has_archive else []
    assert may_overlap(listers)
    expected = [
        f"{lister.archive} c/{number}-{i}.png"
        for lister in listers
        for number, count in enumerate(lister.counts)  # type: ignore[attr-defined]
        for i in range(count)
    ]
    found: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        for listings in chunks_of_listings(listers, ListingStore(None), pool, chunk_pictures=chunk):
            names = [f"{each.archive} {e.member}" for each in listings for e in each.entries]
            assert len(names) < chunk + max(SLICE, 7)
            found += names
    assert found == expected


class Counting(Numbers):
    """Counts how many slices are being listed at the same time."""

    def __init__(self, archive: str, counts: Sequence[int]) -> None:
        super().__init__(archive, counts)
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def list_slice(self, name: str) -> SliceListing:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self.lock:
            self.now -= 1
        return super().list_slice(name)


def test_in_order_slices_that_go_on_are_listed_side_by_side_too() -> None:
    lister = Counting("/x", [30 * SLICE] * 20)
    nested = Numbers("/x/y", [2])
    with ThreadPoolExecutor(16) as pool:
        chunks = list(chunks_of_listings([lister, nested], ListingStore(None), pool, None, 10**6))
    assert sum(len(listing.table) for listing in chunks[0]) == 20 * 30 * SLICE + 2
    assert lister.most >= 8


def test_an_archive_of_more_pictures_than_a_chunk_is_planned_in_pieces() -> None:
    with ThreadPoolExecutor(4) as pool:
        lister = Numbers("/a.tar", [25])
        chunks = [c for c in chunks_of_listings([lister], ListingStore(None), pool, None, 10) if c]
    assert [len(chunk[0].table) for chunk in chunks] == [10, 10, 5]
    assert [len(chunk[0].problems) for chunk in chunks] == [1, 0, 0]
