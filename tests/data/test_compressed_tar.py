"""Members of a compressed tar are read from the seek index that its listing left."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import fsspec
import pytest

from nfbmr.data import compressed_tar
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import join_slices, lister_of, read_entry
from nfbmr.data.seek_index import read_index
from nfbmr.errors import DataError

COUNT = 60
RANDOM = random.Random(0)
# Half of them cannot be packed, half pack well; some are larger than a block.
CONTENTS = [
    RANDOM.randbytes(200_000) if n % 2 else bytes([n]) * RANDOM.randrange(0, 400_000)
    for n in range(COUNT)
]
CONTENTS[7] = RANDOM.randbytes(2_500_000)


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def packed(contents: list[bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for number, content in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


ARCHIVE = packed(CONTENTS)


def listed(uri: str, keep: Path | str) -> list[ArchiveEntry]:
    lister = lister_of(uri, str(keep))
    return join_slices(lister, [lister.list_slice(name) for name in lister.slices]).entries


@pytest.fixture(params=["whole", "in two gzip members"])
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> list[ArchiveEntry]:
    data = ARCHIVE
    if request.param != "whole":
        plain = gzip.decompress(data)
        data = gzip.compress(plain[:4_000_001], 1) + gzip.compress(plain[4_000_001:], 1)
    (tmp_path / "a.tar.gz").write_bytes(data)
    return listed(str(tmp_path / "a.tar.gz"), tmp_path / "indexes")


def test_archive_and_index_may_lie_in_an_object_store(s3_bucket: str) -> None:
    """Found by a fault test: no index could be written there."""
    uri = f"{s3_bucket}/a.tar.gz"
    fsspec.filesystem("s3").pipe_file(uri, ARCHIVE)
    entries = listed(uri, f"{s3_bucket}/indexes")
    assert str(entries[0].lookup).startswith(f"{s3_bucket}/indexes/")
    for number in (59, 7, 0, 31):
        assert read_entry(entries[number]) == CONTENTS[number]


def test_members_come_back_in_any_order(entries: list[ArchiveEntry]) -> None:
    assert all(entry.lookup and entry.lookup.endswith(".gzidx") for entry in entries)
    order = list(range(COUNT))
    random.Random(1).shuffle(order)
    for number in order:
        assert read_entry(entries[number]) == CONTENTS[number]


def test_reading_all_members_unpacks_the_archive_about_once(
    entries: list[ArchiveEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, as units take them; without an index it would be 30 times."""
    blocks: list[int] = []
    original = compressed_tar._IndexedArchive._unpack

    def counted(self: compressed_tar._IndexedArchive, number: int) -> bytes:
        blocks.append(number)
        return original(self, number)

    monkeypatch.setattr(compressed_tar._IndexedArchive, "_unpack", counted)
    assert [read_entry(entry) for entry in entries] == CONTENTS
    unpacked = sum(len(content) + 1024 for content in CONTENTS)
    assert len(blocks) <= unpacked // compressed_tar.spacing_bytes(len(ARCHIVE)) + 2


@pytest.mark.parametrize("place", ["in a picture", "behind the end"])
def test_the_index_of_a_bomb_is_no_larger_than_the_bomb(place: str, tmp_path: Path) -> None:
    """512 MiB of zeros in 0.5 MB: by the usual spacing its index would be eight times as large."""
    zeros = gzip.compress(bytes(2**27), 9) * 4
    small = [(f"{n}.png", CONTENTS[1]) for n in range(3)]
    if place == "behind the end":
        data = gzip.compress(tar_of(small)) + zeros
    else:
        header = tarfile.TarInfo("bomb.png")
        header.size = 2**29
        data = gzip.compress(header.tobuf()) + zeros + gzip.compress(tar_of(small))
    (tmp_path / "a.tar.gz").write_bytes(data)
    entries = listed(str(tmp_path / "a.tar.gz"), tmp_path / "indexes")
    (index,) = (tmp_path / "indexes").iterdir()
    assert index.stat().st_size < 1.1 * len(data)
    assert [read_entry(entry) for entry in entries if entry.member != "bomb.png"] == [
        CONTENTS[1]
    ] * 3
    assert len(entries) == (3 if place == "behind the end" else 4)
    with pytest.raises(DataError, match="more than the limit"):
        read_entry(ArchiveEntry(entries[0].archive, "bomb.png", 512, 2**29, None, str(index)))


def test_the_usual_index_has_a_point_in_every_block(tmp_path: Path) -> None:
    """Pictures that pack well, as BMP and TIFF do, are no bomb."""
    content = RANDOM.randbytes(2**16).join([bytes(2**20)] * 30)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of([("a.bmp", content)]), 1))
    (entry,) = listed(str(tmp_path / "a.tar.gz"), tmp_path / "indexes")
    data = Path(str(entry.lookup)).read_bytes()
    assert compressed_tar._SPACING_IN_INDEX.unpack_from(data) == (2**20,)
    assert read_entry(entry) == content


def test_an_archive_that_changed_is_an_error_and_never_other_bytes(
    entries: list[ArchiveEntry],
) -> None:
    assert read_entry(entries[0]) == CONTENTS[0]
    Path(entries[0].archive).write_bytes(packed(CONTENTS[::-1]))
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(entries[-1])


def test_a_damaged_archive_gives_what_lies_before_the_damage(tmp_path: Path) -> None:
    cut = len(ARCHIVE) // 2
    (tmp_path / "cut.tar.gz").write_bytes(ARCHIVE[:cut])
    lister = lister_of(str(tmp_path / "cut.tar.gz"), str(tmp_path / "indexes"))
    listing = join_slices(lister, [lister.list_slice("whole")])
    assert listing.problems
    assert 10 < len(listing.entries) < COUNT
    for entry in listing.entries[:-1]:
        assert read_entry(entry) == CONTENTS[int(entry.member.removesuffix(".png"))]


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        return
    if how == "longer":
        with path.open("ab") as file:
            file.truncate(2**40)
        return
    data[len(data) // 2] ^= 1
    path.write_bytes(data[:-1] if how == "shorter" else data)


@pytest.mark.parametrize("how", ["a bit flipped", "shorter", "longer", "gone"])
def test_an_index_that_is_not_the_one_in_the_plan_is_made_anew(
    how: str, entries: list[ArchiveEntry]
) -> None:
    """Code in C reads it: it gets nothing but what it wrote, and no more than that is read."""
    index = str(entries[0].lookup)
    assert read_index(index, 2**29)
    assert read_entry(entries[0]) == CONTENTS[0]
    compressed_tar._opened.clear()
    spoil(Path(index), how)
    assert read_index(index, 2**29) is None
    for number in (59, 7, 0, 31):
        assert read_entry(entries[number]) == CONTENTS[number]


def test_an_index_made_anew_of_a_bomb_has_no_more_points_than_the_first(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_of([("1.png", CONTENTS[1])])) + gzip.compress(bytes(2**27), 9) * 2
    (tmp_path / "a.tar.gz").write_bytes(bomb)
    (entry,) = listed(str(tmp_path / "a.tar.gz"), tmp_path / "indexes")
    (index,) = (tmp_path / "indexes").iterdir()
    index.unlink()
    assert read_entry(entry) == CONTENTS[1]
    opened = compressed_tar._opened.get(entry.archive, entry.version, entry.lookup)
    points = sum(1 for _ in opened._stream.seek_points())
    assert points <= compressed_tar.most_points(len(bomb))


def test_an_index_is_named_by_what_it_holds(tmp_path: Path) -> None:
    """Two drivers of one run leave the same one; what is too large for its archive is not read."""
    (tmp_path / "a.tar.gz").write_bytes(ARCHIVE)
    found = [listed(str(tmp_path / "a.tar.gz"), tmp_path / "indexes")[0].lookup for _ in range(2)]
    assert found[0] == found[1]
    data = Path(str(found[0])).read_bytes()
    assert read_index(str(found[0]), len(data)) == data
    assert read_index(str(found[0]), len(data) - 1) is None
    assert read_index(f"{tmp_path}/0a1b.gzidx", len(data)) is None
