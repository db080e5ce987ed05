"""The central directory of a zip, ZIP64 included, as Python's own reader sees it."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data import zip_archive
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.errors import DataError

NAMES = st.text("abß雪 /", min_size=1, max_size=12).map(lambda name: f"n{name}x.png")
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=8)


def force_zip64(archive: bytes) -> bytes:
    """The same archive with every size and place in ZIP64 fields, and a ZIP64 end record."""
    end = archive.rindex(b"PK\5\6")
    _, _, _, _, count, _, start, _ = struct.unpack_from("<4s4H2IH", archive, end)
    place, entries = start, []
    for _ in range(count):
        values = list(struct.unpack_from("<4s6H3I5H2I", archive, place))
        name, extra, comment = values[10:13]
        texts = archive[place + 46 : place + 46 + name + extra + comment]
        place += 46 + len(texts)
        field = struct.pack("<2H3Q", 1, 24, values[9], values[8], values[16])
        values[8] = values[9] = values[16] = 0xFFFFFFFF
        values[11] = extra + len(field)
        texts = texts[: name + extra] + field + texts[name + extra :]
        entries.append(struct.pack("<4s6H3I5H2I", *values) + texts)
    directory = b"".join(entries)
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start
    )
    pointer = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return archive[:start] + directory + record + pointer + last


def packed(members: dict[str, bytes], comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = comment
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@given(members=MEMBERS, prefix=st.sampled_from([b"", b"#!/bin/sh\n"]))
@settings(max_examples=40, deadline=None)
def test_zip64_fields_and_records(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], prefix: bytes
) -> None:
    path = tmp_path_factory.mktemp("zip64") / "a.zip"
    path.write_bytes(force_zip64(packed(members)))
    with zipfile.ZipFile(path) as archive:  # Python agrees that this is ZIP64
        assert {i.filename: archive.read(i) for i in archive.infolist()} == members
    path.write_bytes(prefix + path.read_bytes())
    listing = list_archive(str(path))
    assert listing.problems == []
    assert {entry.member: read_entry(entry) for entry in listing.entries} == members


def test_more_members_than_the_old_record_can_count(tmp_path: Path) -> None:
    """65,600 members: Python itself writes the ZIP64 end record then."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(65_600):
            archive.writestr(zipfile.ZipInfo(f"{number}.png"), b"%d" % number)
    listing = list_archive(str(tmp_path / "many.zip"))
    assert (len(listing.table), listing.problems) == (65_600, [])
    for number in (0, 65_535, 65_536, 65_599):
        assert read_entry(listing.entries[number]) == b"%d" % number


def test_a_member_beyond_four_gigabytes(tmp_path: Path) -> None:
    """A sparse file: the hole takes no room on the disk."""
    path = tmp_path / "large.zip"
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"first")
        file.seek(5 * 2**30)
        archive.start_dir = file.tell()
        archive.writestr("z.png", b"behind")
    entries = list_archive(str(path)).entries
    assert [entry.offset for entry in entries] == [0, 5 * 2**30]
    assert [read_entry(entry) for entry in entries] == [b"first", b"behind"]


def test_pieces_of_the_directory_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{'n' * (n % 50)}{n}.png": b"x" for n in range(500)}
    path = tmp_path / "a.zip"
    path.write_bytes(packed(members, b"comment " * 100))
    whole = list_archive(str(path))
    monkeypatch.setattr(zip_archive, "_PIECE_BYTES", 300)
    monkeypatch.setattr(zip_archive, "_LONGEST_ENTRY_BYTES", 200)
    assert list_archive(str(path)) == whole
    assert len(whole.entries) == 500


@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_a_lying_directory_gives_no_other_bytes_and_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    members = {f"{n}.png": bytes([n + 1]) * 50 for n in range(4)}
    data = bytearray(force_zip64(packed(members)))
    start = data.index(b"PK\1\2")
    data[start + place % (len(data) - start)] ^= value
    path = tmp_path_factory.mktemp("lying") / "a.zip"
    path.write_bytes(bytes(data))
    try:
        listing = list_archive(str(path))
    except DataError:
        return
    assert (
        len(listing.entries) == 4
        or listing.problems
        or listing.skipped_members
        or listing.replaced_members
    )
    for entry in listing.entries:
        try:
            data = read_entry(entry)
        except DataError:
            continue
        assert data == members[entry.member]


def test_a_number_that_fits_no_64_bits_is_damage_of_its_archive(tmp_path: Path) -> None:
    data = bytearray(force_zip64(packed({"a.png": b"a", "b.png": b"b"})))
    field = data.index(struct.pack("<2H", 1, 24), data.rindex(b"PK\1\2"))
    data[field + 4 + 16 : field + 4 + 24] = b"\xff" * 8
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    listing = list_archive(str(path))
    assert [entry.member for entry in listing.entries] == ["a.png"]
    assert "would lie at byte" in listing.problems[0]


def test_a_member_that_claims_to_be_larger_packed_than_unpacked_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    data = bytearray(packed({"a.png": b"a" * 50}))
    data[18:22] = (500 * 2**20).to_bytes(4, "little")
    path.write_bytes(data + bytes(2**20))
    fetched: list[int] = []
    real = zip_archive.fetch

    def fetch(uri: str, start: int, end: int, version: str | None = None) -> bytes:
        fetched.append(end - start)
        return real(uri, start, end, version)

    monkeypatch.setattr(zip_archive, "fetch", fetch)
    entry = ArchiveEntry(str(path), "a.png", 0, 50)
    with pytest.raises(DataError, match="header lies"):
        read_entry(entry)
    assert sum(fetched) < 10_000
