"""Damaged archives: nothing is lost in silence, and errors name what to do."""

import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.errors import DataError

COUNT = 6
CONTENTS = {f"{n}.png": bytes([n + 1]) * (300 + 200 * n) for n in range(COUNT)}


def make_tar(prefix: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in CONTENTS.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make_zip(method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    return out.getvalue()


TAR = make_tar()
END = TAR.rindex(b"\x06") + 1  # of the last member's data
STARTS = [TAR.index(b"%d.png" % n) for n in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def attempt(entry: ArchiveEntry) -> bytes | DataError:
    try:
        return read_entry(entry)
    except DataError as error:
        return error


def save(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


@pytest.mark.parametrize("zipped", [False, True])
@given(cut=st.integers(512 + 300, END + 400))
@settings(max_examples=30, deadline=None)
def test_a_tar_that_was_cut_lists_what_is_whole_and_says_so(
    folder: Path, zipped: bool, cut: int
) -> None:
    if zipped:
        # Cut what was packed, not the packed stream: its own end is missing as well.
        data = gzip.compress(TAR[:cut])[:-8]
        uri = save(folder, "cut.tar.gz", data)
    else:
        uri = save(folder, "cut.tar", TAR[:cut])
    listing = list_archive(uri)
    read = {entry.member: attempt(entry) for entry in listing.entries}
    whole = {name: data for name, data in read.items() if isinstance(data, bytes)}
    assert zipped or whole == read
    expected = {
        name: content
        for start, (name, content) in zip(STARTS, CONTENTS.items(), strict=True)
        if start + 512 + len(content) <= cut
    }
    assert whole == expected
    assert listing.problems


@given(victim=st.integers(1, COUNT - 1), place=st.integers(0, 511), value=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_a_damaged_header_is_reported_and_costs_one_picture(
    folder: Path, victim: int, place: int, value: int
) -> None:
    data = bytearray(TAR)
    data[STARTS[victim] + place] ^= value
    listing = list_archive(save(folder, "header.tar", bytes(data)))
    names = [entry.member for entry in listing.entries]
    if names != list(CONTENTS):  # a change may be harmless, such as zero to blank
        assert names == list(CONTENTS)[:victim] + list(CONTENTS)[victim + 1 :]
        (problem,) = listing.problems
        assert f"damaged at byte {STARTS[victim]}," in problem
        # Behind the last one only its own size, which may be what is damaged, leads to the end.
        if victim + 1 < COUNT:
            assert f"nothing from there to byte {STARTS[victim + 1]} could be listed" in problem


def test_tars_joined_by_cat_are_reported_and_listed(folder: Path) -> None:
    """The later of two pictures of one name counts, as in one archive."""
    for count in (2, 3):
        uri = save(folder, "joined.tar", TAR * count)
        listing = list_archive(uri)
        assert {e.member: read_entry(e) for e in listing.entries} == CONTENTS
        assert {e.offset for e in listing.entries} == {
            (count - 1) * len(TAR) + start + 512 for start in STARTS
        }
        assert len(listing.problems) == count - 1
        assert "more data behind the mark at its end" in listing.problems[0]
        assert f"to byte {len(TAR)} could be listed" in listing.problems[0]


def test_a_damaged_header_in_a_tar_that_is_joined_with_another(folder: Path) -> None:
    damaged = bytearray(make_tar("first/") + TAR)
    damaged[STARTS[2]] ^= 1
    listing = list_archive(save(folder, "joined.tar", bytes(damaged)))
    names = [f"first/{name}" for name in CONTENTS if name != "2.png"]
    assert [e.member for e in listing.entries] == [*names, *CONTENTS]
    assert len(listing.problems) == 2


def test_each_of_several_damaged_headers_costs_one_picture(folder: Path) -> None:
    data = bytearray(TAR)
    for victim in (1, 2, 4):
        data[STARTS[victim] + 3] ^= 1
    listing = list_archive(save(folder, "headers.tar", bytes(data)))
    assert [e.member for e in listing.entries] == ["0.png", "3.png", "5.png"]
    assert len(listing.problems) == 3


def test_zeros_written_over_a_part_are_no_end(folder: Path) -> None:
    """However many they are: those of a lost piece of a disk are more than an end has."""
    filler = tarfile.TarInfo("large.bin")
    filler.size = 300_000
    gap = filler.tobuf() + b"x" * (filler.size + -filler.size % 512)
    start = STARTS[3]
    data = TAR[:start] + bytes(len(gap)) + TAR[start:]
    listing = list_archive(save(folder, "zeros.tar", data))
    assert {e.member: read_entry(e) for e in listing.entries} == CONTENTS
    (problem,) = listing.problems
    assert f"(byte {start})" in problem
    assert f"to byte {start + len(gap)} could be listed" in problem


def test_a_damaged_header_before_the_cut_hides_what_is_behind_it(folder: Path) -> None:
    """Behind it nothing leads to an end that could show which headers are no picture's content."""
    data = bytearray(TAR[: STARTS[5] + 600])
    data[STARTS[2]] ^= 1
    listing = list_archive(save(folder, "header.tar", bytes(data)))
    assert [e.member for e in listing.entries] == ["0.png", "1.png"]
    assert len(listing.problems) == 1


def test_a_missing_end_mark_is_reported(folder: Path) -> None:
    last_block = END + -END % 512
    listing = list_archive(save(folder, "unmarked.tar", TAR[:last_block]))
    assert len(listing.entries) == COUNT
    assert "may have been cut off" in listing.problems[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_a_damaged_zip_never_gives_other_bytes(
    folder: Path, method: int, place: int, value: int
) -> None:
    data = bytearray(make_zip(method))
    data[place % (data.index(b"PK\1\2"))] ^= value  # anything before the central directory
    listing = list_archive(save(folder, "damaged.zip", bytes(data)))
    assert len(listing.entries) == COUNT
    read = {entry.image_uri: attempt(entry) for entry in listing.entries}
    errors = {uri: str(error) for uri, error in read.items() if isinstance(error, DataError)}
    assert len(errors) <= 1
    assert all(uri in message for uri, message in errors.items())
    for entry in listing.entries:
        assert entry.image_uri in errors or read[entry.image_uri] == CONTENTS[entry.member]


def test_encrypted_and_unknown_packing_say_what_to_do(folder: Path) -> None:
    data = bytearray(make_zip())
    data[6] |= 1
    (entry, *_) = list_archive(save(folder, "secret.zip", bytes(data))).entries
    with pytest.raises(DataError, match="encrypted: pack it without"):
        read_entry(entry)
    uri = save(folder, "lzma.zip", make_zip(zipfile.ZIP_LZMA))
    with pytest.raises(DataError, match="zip method 14"):
        read_entry(list_archive(uri).entries[0])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.tar", b""),
        ("zeros.tar", bytes(10240)),
        ("noise.tar", b"no tar" * 200),
        ("noise.tar.gz", b"no gzip" * 200),
        ("short.tgz", gzip.compress(TAR)[:30]),
        ("empty.zip", b""),
        ("cut.zip", make_zip()[:-30]),
        ("picture.png", b"\x89PNG"),
    ],
)
def test_an_archive_without_pictures_is_an_error(folder: Path, name: str, data: bytes) -> None:
    with pytest.raises(DataError, match=name):
        list_archive(save(folder, name, data))


def test_missing_things_are_named(folder: Path) -> None:
    for name in ("nowhere", "nowhere.tar", "nowhere.zip", "nowhere.tar.gz"):
        with pytest.raises(DataError, match=rf"{name}.*does not exist"):
            list_archive(str(folder / name))
    with pytest.raises(DataError, match="protocol"):
        list_archive("nonsense://bucket/pictures")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("-")
    with pytest.raises(DataError, match="holds no pictures that can be listed: it has 1 other"):
        list_archive(str(folder / "texts"))


def test_an_archive_that_changed_since_it_was_listed(folder: Path) -> None:
    for name, data in (("x.tar", TAR), ("x.zip", make_zip())):
        uri = save(folder, name, data)
        entry = list_archive(uri).entries[-1]
        save(folder, name, data[:600])
        with pytest.raises(DataError, match="changed since it was listed"):
            read_entry(entry)
        Path(uri).unlink()
        with pytest.raises(DataError, match="does not exist"):
            read_entry(entry)


def test_a_file_whose_name_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    try:
        (tmp_path / os.fsdecode(b"b\xe4d.png")).write_bytes(b"two")
    except OSError as error:
        pytest.skip(f"this file system refuses names that are not UTF-8: {error}")
    listing = list_archive(str(tmp_path))
    assert [entry.member for entry in listing.entries] == ["a.png"]
    assert rb"b\xe4d.png" in listing.problems[0].encode()


def test_a_zip_bomb_unpacks_no_more_than_its_directory_says(folder: Path) -> None:
    """64 MiB of zeros behind a directory that says 1,000 bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb.png", bytes(2**26))
    data = bytearray(stream.getvalue())
    place = data.index(b"PK\x01\x02") + 24
    assert int.from_bytes(data[place : place + 4], "little") == 2**26
    data[place : place + 4] = (1000).to_bytes(4, "little")
    (entry,) = list_archive(save(folder, "bomb.zip", bytes(data))).entries
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb\.png"):
            read_entry(entry)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**23


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_member_is_a_problem_of_the_listing(tmp_path: Path, form: str) -> None:
    """As GNU tar writes files with holes; what lies around them is read."""
    (tmp_path / "a.png").write_bytes(b"first")
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(2**22)
        file.seek(2**20)
        file.write(b"data between holes")
    (tmp_path / "z.png").write_bytes(b"last")
    command = ["tar", f"--format={form}", "--sparse", "-cf", "sparse.tar", "a.png", "hole.png"]
    subprocess.run([*command, "z.png"], cwd=tmp_path, check=True)
    listed = list_archive(str(tmp_path / "sparse.tar"))
    assert [read_entry(entry) for entry in listed.entries] == [b"first", b"last"]
    (problem,) = listed.problems
    assert "hole.png" in problem
    assert "sparse" in problem


@pytest.mark.parametrize(
    "content",
    [
        b"16 path=a/b.jpg\n" + b"x" * 30,
        b"16 path=a/b.jpg\n" + b"0 ",
        b" path=a/b.jpg\n",
        b"3 =\n2 \n",
        b"99 path=a/b.jpg\n",
    ],
)
def test_an_extended_header_that_leads_nowhere_is_damage_and_no_endless_loop(
    content: bytes, tmp_path: Path
) -> None:
    """Found in review: a record without a length began anew for ever."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        header = tarfile.TarInfo("PaxHeaders/a")
        header.type, header.size = tarfile.XHDTYPE, len(content)
        tar.addfile(header, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("bottle/1.png"))
    with pytest.raises(DataError, match="the extended header at byte 0 is damaged"):
        list_archive(save(tmp_path, "pax.tar", packed.getvalue()))
