"""Sources become one table: every picture once, and a listing that was cut off goes on."""

import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data import manifest, tar_lister
from nfbmr.data.archive_entry import ENTRIES, ArchiveEntry, ArchiveListing, EntryRows
from nfbmr.data.archives import read_entry
from nfbmr.data.lister import Lister, SliceListing
from nfbmr.errors import DamagedTableError, DataError
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.sources import pictures_of
from tests.score.planning import listed

RULE = CategoryRule()


def make_tar(path: Path, names: list[str]) -> str:
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1500
            tar.addfile(info, io.BytesIO(b"x" * 1500))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("bottle/1.png", "bottle/2.png", "can/lid/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_a_picture_in_several_sources_stands_where_it_came_first(folder: Path) -> None:
    once = listed([str(folder)], RULE)
    assert once.column("category").to_pylist() == ["bottle", "bottle", "can"]
    nested = [str(folder), str(folder / "can"), f"{folder}/*/*.png", f"{folder}/"]
    assert listed(nested, RULE).equals(once)
    other = listed([str(folder / "can"), str(folder)], RULE)
    assert other.column("category").to_pylist() == ["lid", "bottle", "bottle"]
    assert sorted(other.column("image_uri").to_pylist()) == once.column("image_uri").to_pylist()


def test_sources_of_all_kinds_at_once(folder: Path, tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", ["bottle/9.png", "bottle/notes.txt"])
    table = pa.table({"image": [b"x"], "path": ["p.png"], "category": ["can"]})
    pq.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "m.csv").write_text("uri,time\npictures/bottle/1.png,2026-11-24T10:00:00Z\n")
    sources = [tar, str(tmp_path / "p.parquet"), str(tmp_path / "m.csv"), str(folder)]
    pictures = listed(sources, CategoryRule("**/{category}/"))
    rows = {row["image_uri"]: row for row in pictures.to_pylist()}
    assert len(rows) == 5
    assert rows[f"{tar}::bottle/9.png"]["problem"] is not None  # no folder before bottle/
    assert rows[f"{tmp_path}/p.parquet::p.png"]["category"] == "can"
    first = rows[str(folder / "bottle/1.png")]
    assert first["category"] == "bottle"
    assert first["captured_at"].isoformat() == "2026-11-24T10:00:00+00:00"
    assert first["archive"] == f"{tmp_path}/m.csv"
    fixed = listed(sources, CategoryRule(fixed="all"))
    assert set(fixed.column("category").to_pylist()) == {"all"}


def test_of_pictures_listed_twice_the_first_counts_however_small_the_chunks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a manifest is read by row group, of which few are in memory."""
    monkeypatch.setattr(manifest, "ROWS_PER_SLICE", 2)
    generator = np.random.default_rng(0)
    uris = [f"pictures/{name}" for name in ("bottle/1.png", "can/lid/1.png", "gone/1.png")]
    rows = {
        "uri": [uris[i] for i in generator.integers(0, 3, 40)],
        "category": [f"c{i}" for i in range(40)],
    }
    pq.write_table(pa.table(rows), tmp_path / "m.parquet", row_group_size=7)
    sources = [str(folder / "can"), str(tmp_path / "m.parquet"), str(folder)]
    whole = listed(sources, RULE)
    assert len(whole) == 4
    first_of = {uri: rows["category"][rows["uri"].index(uri)] for uri in uris}
    by_name = {row["image_uri"]: row for row in whole.to_pylist()}
    assert by_name[f"{folder}/bottle/1.png"]["category"] == first_of[uris[0]]
    assert by_name[f"{folder}/can/lid/1.png"]["archive"] == str(folder / "can")
    for chunk in (1, 3, 10):
        assert listed(sources, RULE, chunk_pictures=chunk).equals(whole)


def test_two_patterns_below_one_folder_are_two_sources(folder: Path, tmp_path: Path) -> None:
    """Also where the listing of the one was kept by a run that was cut off."""
    (folder / "bottle" / "3.jpg").write_bytes(b"x")
    patterns = [f"{folder}/*/*.jpg", f"{folder}/*/*.png"]
    found = listed(patterns, RULE).column("member").to_pylist()
    assert found == ["bottle/3.jpg", "bottle/1.png", "bottle/2.png"]
    keep = str(tmp_path / "listing")
    for pattern, count in zip(patterns, (1, 2), strict=True):
        assert len(listed([pattern], RULE, store=ListingStore(keep))) == count


def test_one_bad_archive_among_many_is_an_error_row(folder: Path, tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", ["bottle/1.png"])
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "c.zip").write_bytes(b"PK no zip at all")
    (tmp_path / "d.parquet").write_bytes(b"no table")
    rows = listed([f"{tmp_path}/*.*"], RULE).to_pylist()
    names = [row["archive"].rpartition("/")[2] for row in rows]
    assert names == ["a.tar", "b.tar", "c.zip", "d.parquet"]
    assert [row["problem"] is None for row in rows] == [True, False, False, False]


def test_links_are_what_they_stand_for(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "9.png").write_bytes(b"nine")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "can" / "2.png").symlink_to(elsewhere / "9.png")
    (folder / "can" / "3.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "can" / "around").symlink_to(folder)
    rows = {row["member"]: row for row in listed([str(folder)], RULE).to_pylist()}
    names = {"bottle/1.png", "bottle/2.png", "can/lid/1.png"}
    assert set(rows) == names | {"linked/9.png", "can/2.png", "can/3.png"}
    assert rows["can/2.png"]["length"] == rows["linked/9.png"]["length"] == 4
    entry = ArchiveEntry(str(folder), "can/2.png", None, 4, rows["can/2.png"]["version"])
    assert read_entry(entry) == b"nine"
    gone = ArchiveEntry(str(folder), "can/3.png", None, 0, rows["can/3.png"]["version"])
    with pytest.raises(DataError, match="does not exist"):
        read_entry(gone)


def test_damage_becomes_a_planned_picture_with_a_problem(tmp_path: Path) -> None:
    tar = Path(make_tar(tmp_path / "a.tar", ["bottle/1.png", "bottle/2.png"]))
    tar.write_bytes(tar.read_bytes()[:3000])
    rows = listed([str(tar)], RULE).to_pylist()
    assert [row["member"] for row in rows] == ["bottle/1.png", ""]
    assert rows[1]["image_uri"].startswith(f"{tar}::#problem-0-")
    assert "ends in the middle of 'bottle/2.png'" in rows[1]["problem"]


def test_a_damaged_table_among_other_sources_is_an_error_row_and_alone_an_error(
    tmp_path: Path,
) -> None:
    """However it is named: by itself or by a pattern, as a damaged tar beside it."""
    tar = make_tar(tmp_path / "a.tar", ["bottle/1.png"])
    tables = [str(tmp_path / name) for name in ("b.csv", "c.parquet")]
    for table in tables:
        Path(table).write_bytes(b"uri\n/\xe4.png\n")
        with pytest.raises(DamagedTableError, match=r"\.(csv|parquet) is no readable"):
            listed([table], RULE)
    for sources in ([tar, *tables], [tar, f"{tmp_path}/[bc].*"]):
        rows = listed(sources, RULE).to_pylist()
        assert [row["member"] for row in rows] == ["bottle/1.png", "", ""]
        assert [row["archive"] for row in rows] == [tar, *tables]
        assert all("is no readable" in row["problem"] for row in rows[1:])


def test_a_damaged_table_that_was_mended_is_listed_anew(tmp_path: Path) -> None:
    tar, table = make_tar(tmp_path / "a.tar", ["bottle/1.png"]), tmp_path / "b.csv"
    keep = str(tmp_path / "listing")
    table.write_bytes(b"uri\n/bottle/\xe4.png\n")
    assert len(listed([tar, str(table)], RULE, store=ListingStore(keep))) == 2
    table.write_text("uri\nbottle/2.png\nbottle/3.png\n")
    rows = listed([tar, str(table)], RULE, store=ListingStore(keep)).to_pylist()
    assert [row["problem"] for row in rows] == [None] * 3


class KilledError(Exception):
    """Stands for a driver that is killed while it lists."""


def test_finished_slices_are_not_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first listing is cut off after some slices of one tar and before the other."""
    names = [f"bottle/{n:03d}.png" for n in range(40)]
    sources = [make_tar(tmp_path / f"{name}.tar", names) for name in "ab"]
    keep = str(tmp_path / "listing")
    monkeypatch.setattr(tar_lister, "SLICE_BYTES", 8 * 1024)
    undisturbed = listed(sources, RULE)
    names_listed: list[str] = []
    lock = threading.Lock()
    original = tar_lister.TarLister.list_slice

    def counted(self: Lister, name: str) -> SliceListing:
        with lock:
            if len(names_listed) >= limit:
                raise KilledError
            names_listed.append(f"{self.archive} {name}")
        return original(self, name)  # type: ignore[arg-type]

    monkeypatch.setattr(tar_lister.TarLister, "list_slice", counted)
    limit = 7
    with pytest.raises(DataError, match="KilledError"):
        listed(sources, RULE, store=ListingStore(keep))
    before = set(names_listed)
    limit = 1000
    store = ListingStore(keep)
    assert listed(sources, RULE, store=store).equals(undisturbed)
    assert len(names_listed) == len(set(names_listed)), "no slice was listed twice"
    assert store.found == len(before) == 7
    again = ListingStore(keep)
    names_listed.clear()
    assert listed(sources, RULE, store=again).equals(undisturbed)
    assert names_listed == []
    again.clear()
    assert not Path(keep).exists()


def test_an_archive_that_changed_between_two_listings_is_listed_anew(
    tmp_path: Path,
) -> None:
    tar, keep = tmp_path / "a.tar", str(tmp_path / "listing")
    make_tar(tar, ["bottle/1.png"])
    listed([str(tar)], RULE, store=ListingStore(keep))
    make_tar(tar, ["bottle/1.png", "bottle/2.png"])
    assert len(listed([str(tar)], RULE, store=ListingStore(keep))) == 2


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4))
def test_each_once_keeps_the_first_of_every_name(parts: list[list[int]]) -> None:
    parts = [*parts, [0]]
    listings = []
    for part in parts:
        rows = EntryRows(ENTRIES)
        for number in part:
            rows.add((f"c/{number}.png", None, len(listings), None, None, None))
        listings.append(ArchiveListing("root", rows.table()))
    expected: dict[str, int] = {}
    for index, part in enumerate(parts):
        for number in part:
            expected.setdefault(f"root/c/{number}.png", index)
    table = pictures_of(listings, RULE)
    columns = (table.column(name).to_pylist() for name in ("image_uri", "length"))
    assert list(zip(*columns, strict=True)) == list(expected.items())
