"""Patterns of sources: folders, archives and pictures, on a disk and in an object store."""

import os
import tarfile
from pathlib import Path

import fsspec
import pytest

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import join_slices, listers_of
from nfbmr.errors import DataError

FILES = [
    "2026-10-01/line7/a.tar",
    "2026-11-01/line7/b.tar",
    "2026-11-01/line8/c.tar",
    "2026-11-01/line7/.hidden.tar",
    "2026-11-01/line7/bottle/1.png",
    "2026-11-01/line7/bottle/notes.txt",
    "2026-11-02/line7/can/2.png",
    "2026-11-02/line7/can/deeper/3.jpg",
]


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = str(tmp_path / "r")
    if request.param == "object store":
        place = f"{request.getfixturevalue('s3_bucket')}/r"
    fs, path = fsspec.core.url_to_fs(place)
    packed = tmp_path / "one.tar"
    with tarfile.open(packed, "w") as tar:
        tar.addfile(tarfile.TarInfo("bottle/x.png"))
    for name in FILES:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", packed.read_bytes() if name.endswith("tar") else b"x")
    return place


def found(pattern: str) -> list[str]:
    uris: list[str] = []
    for lister in listers_of(pattern):
        slices = [lister.list_slice(name) for name in lister.slices]
        uris += join_slices(lister, slices).image_uris().to_pylist()
    return uris


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("2026-*/line7/*.tar", ["2026-10-01/line7/a.tar", "2026-11-01/line7/b.tar"]),
        ("2026-11-0[12]/line?/*.tar", ["2026-11-01/line7/b.tar", "2026-11-01/line8/c.tar"]),
        ("**/a.tar", ["2026-10-01/line7/a.tar"]),
    ],
)
def test_archives_by_pattern(root: str, pattern: str, names: list[str]) -> None:
    assert found(f"{root}/{pattern}") == [f"{root}/{name}::bottle/x.png" for name in names]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("2026-11-*/line7/*/*.png", [FILES[4], FILES[6]]),
        ("2026-11-0?/line7", [FILES[4], FILES[6], FILES[7]]),
        ("**/*.jpg", [FILES[7]]),
        ("**/can/*.[jp][pn]g", [FILES[6]]),
        ("2026-11-02/**/deeper/*.jpg", [FILES[7]]),
        ("2026-11-0?/**/*.jpg", [FILES[7]]),
        ("2026-11-0*/line7/can/*.png", [FILES[6]]),
        ("2026-11-01/line7/bottle/*.png", [FILES[4]]),
        ("2026-*/line?/bottle/1.png", [FILES[4]]),
        ("*/line7/can", [FILES[6], FILES[7]]),
    ],
)
def test_folders_and_pictures_by_pattern(root: str, pattern: str, names: list[str]) -> None:
    assert sorted(found(f"{root}/{pattern}")) == [f"{root}/{name}" for name in names]


def test_pictures_are_named_below_the_first_wildcard(root: str) -> None:
    (lister,) = listers_of(f"{root}/2026-11-*/line7/*/*.png")
    listing = join_slices(lister, [lister.list_slice(name) for name in lister.slices])
    assert [entry.member for entry in listing.entries] == [FILES[4], FILES[6]]
    assert all(entry.version for entry in listing.entries)


def test_pictures_at_any_depth_are_listed_in_slices_and_in_pieces(root: str) -> None:
    (lister,) = listers_of(f"{root}/**/[0-9].png")
    assert lister.comes_in_pieces
    assert len(lister.slices) > 1
    other = listers_of(f"{root}/**/1.png")[0]
    assert lister.slices == other.slices
    assert lister.identity(lister.slices[0]) != other.identity(lister.slices[0])


def test_a_pattern_that_matches_nothing_says_so(root: str) -> None:
    for pattern in ("2027-*/line7", "*/*/*.zip", "*/nowhere/*.tar"):
        with pytest.raises(DataError, match="matches no folder, archive or picture"):
            listers_of(f"{root}/{pattern}")


def test_a_name_with_brackets_is_a_name_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "line [7]").mkdir()
    (tmp_path / "line [7]" / "a.png").write_bytes(b"x")
    assert found(str(tmp_path / "line [7]")) == [f"{tmp_path}/line [7]/a.png"]


@pytest.mark.parametrize("pattern", ["*/a*", "**/*.png", "*/*.png"])
def test_a_name_that_is_not_utf8_is_a_problem_of_its_own(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a1.png").write_bytes(b"one")
    try:
        (tmp_path / "b" / os.fsdecode(b"a\xe4.png")).write_bytes(b"two")
    except OSError as error:
        pytest.skip(f"this file system refuses names that are not UTF-8: {error}")
    (lister,) = listers_of(f"{tmp_path}/{pattern}")
    listing = join_slices(lister, [lister.list_slice(name) for name in lister.slices])
    assert [entry.member for entry in listing.entries] == ["b/a1.png"]
    assert len(listing.problems) == 1


def write_misnamed(folder: Path, name: bytes, data: bytes) -> None:
    path = folder / os.fsdecode(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        pytest.skip(f"this file system refuses names that are not UTF-8: {error}")


def listings(pattern: str) -> list[ArchiveListing]:
    return [
        join_slices(lister, [lister.list_slice(name) for name in lister.slices])
        for lister in listers_of(pattern)
    ]


@pytest.mark.parametrize(
    ("pattern", "problems"),
    [("*.tar", 1), ("[fx]*", 1), ("*", 2), ("*/*.png", 2), ("**/*.png", 2), ("f*/1.png", 1)],
)
def test_so_are_archives_and_folders_whose_names_are_not_utf8(
    pattern: str, problems: int, tmp_path: Path
) -> None:
    """None of them may keep a plan from being made of all others."""
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "1.png").write_bytes(b"one")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("1.png"))
    write_misnamed(tmp_path, b"f\xe4/1.png", b"lost")
    write_misnamed(tmp_path, b"f\xe4/2.png", b"lost")
    write_misnamed(tmp_path, b"\xe4.tar", (tmp_path / "x.tar").read_bytes())
    found = listings(f"{tmp_path}/{pattern}")
    names = [uri for listing in found for uri in listing.image_uris().to_pylist()]
    assert names
    assert all(name.isascii() for name in names)
    said = [text for listing in found for text in listing.problems]
    assert len(said) == problems
    assert all("not UTF-8" in text and text.isascii() for text in said)


@pytest.mark.parametrize("pattern", ["**/line7/**/*.jpg", "2026-*/**/line7/**", "**/**/*.tar"])
def test_any_depth_twice_is_refused(pattern: str, root: str) -> None:
    """Found in review: the second one was taken for one level, and pictures were left out."""
    with pytest.raises(DataError, match=r"has \*\* more than once"):
        listers_of(f"{root}/{pattern}")
