"""What is packed into an archive is listed and read back, byte for byte, wherever it lies."""

import io
import os
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.data.content import read_bytes
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DataError


def header_like(name: str) -> bytes:
    """Bytes that are themselves a valid tar header, as a picture's content may be."""
    info = tarfile.TarInfo(name)
    info.size = 3
    return info.tobuf()


NAMES = st.one_of(
    st.text("abcXYZ äß雪-_ ./", min_size=1, max_size=30).filter(lambda n: "/." not in f"/{n}"),
    st.text("lang", min_size=120, max_size=200),
    st.sampled_from(["../../etc/passwd", "/abs/olute", "a::b", "x.tar::y", "100%?#&"]),
).map(lambda name: f"{name}x.png")
CONTENTS = st.one_of(
    st.binary(max_size=700),
    st.sampled_from([header_like("evil.png"), bytes(2048), header_like("a.png") + bytes(1024)]),
    st.integers(1, 4000).map(lambda n: b"ab" * n),
)
MEMBERS = st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=6)


def tar_bytes(members: dict[str, bytes], mode: str = "w", fmt: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=fmt) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Unseekable(io.RawIOBase):
    """A pipe: a zip written to one has sizes and checksums behind the data."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


def zip_bytes(
    members: dict[str, bytes], method: int = zipfile.ZIP_STORED, piped: bool = False
) -> bytes:
    seekable, pipe = io.BytesIO(), Unseekable()
    with zipfile.ZipFile(pipe if piped else seekable, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return pipe.data if piped else seekable.getvalue()


PACKERS = {
    "pax.tar": tar_bytes,
    "gnu.tar": lambda members: tar_bytes(members, fmt=tarfile.GNU_FORMAT),
    "a.tar.gz": lambda members: tar_bytes(members, "w:gz"),
    "a.TGZ": lambda members: tar_bytes(members, "w:gz"),
    "stored.zip": zip_bytes,
    "deflated.ZIP": lambda members: zip_bytes(members, zipfile.ZIP_DEFLATED),
    "piped.zip": lambda members: zip_bytes(members, piped=True),
    "piped-deflated.zip": lambda members: zip_bytes(members, zipfile.ZIP_DEFLATED, True),
}


@pytest.fixture(scope="module", params=["local", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A folder on disk, and a prefix on a file system that is none."""
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("archives"))
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield root
    fsspec.filesystem("memory").rm(root, recursive=True)


def put(uri: str, data: bytes) -> str:
    with fsspec.open(uri, "wb") as file:
        file.write(data)
    return uri


@pytest.mark.parametrize("kind", list(PACKERS))
@given(members=MEMBERS)
@settings(max_examples=12, deadline=None)
def test_every_member_comes_back(place: str, kind: str, members: dict[str, bytes]) -> None:
    uri = put(f"{place}/{kind}", PACKERS[kind](members))
    listing = list_archive(uri)
    assert listing.problems == []
    assert [entry.length for entry in listing.entries] == [len(c) for c in members.values()]
    assert [read_entry(entry) for entry in listing.entries] == list(members.values())
    for entry, name in zip(listing.entries, members, strict=True):
        assert entry.archive == uri
        assert entry.member.lstrip("/") == name.lstrip("/")
        assert entry.image_uri == f"{uri}::{entry.member}"
    assert list_archive(uri) == listing, "listing is deterministic"


def test_a_prefix_lists_files_by_their_own_uri(place: str) -> None:
    root = f"{place}/line 1"
    contents = {"b/2.JPG": b"two", "a/1.png": b"one", "odd::{name}*?#%41.webp": b"odd"}
    for name, content in {**contents, "notes.txt": b"-", "a/.hidden.png": b"-"}.items():
        path = f"{root}/{name}"
        fs, inside = fsspec.core.url_to_fs(root)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{inside}/{name}", content)
    listing = list_archive(f"{root}/")
    assert [entry.member for entry in listing.entries] == sorted(contents)
    assert listing.skipped_members == 2
    for entry in listing.entries:
        length = len(contents[entry.member])
        assert entry == ArchiveEntry(root, entry.member, None, length, entry.version)
        assert entry.version
        assert entry.image_uri == f"{root}/{entry.member}"
        assert read_entry(entry) == contents[entry.member]


def test_local_addresses_are_plain_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"one")
    (tmp_path / "x.tar").write_bytes(tar_bytes({"1.png": b"one"}))
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "x.tar"):
        wanted = list_archive(name)
        assert wanted.entries[0].archive == str(tmp_path / name)
        assert list_archive(f"file://{tmp_path}/{name}") == wanted


def test_other_members_and_repeated_names_are_counted(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in [
            ("a.png", b"old"),
            ("b.txt", b"-"),
            ("b.png", b"b"),
            ("a.png", b"new"),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, kind, target in [
            ("folder", tarfile.DIRTYPE, ""),
            ("soft.png", tarfile.SYMTYPE, "a.png"),
            ("hard.png", tarfile.LNKTYPE, "b.png"),
            ("lost.png", tarfile.LNKTYPE, "gone.png"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    listing = list_archive(str(tmp_path / "a.tar"))
    read = {entry.member: read_entry(entry) for entry in listing.entries}
    assert read == {"a.png": b"new", "b.png": b"b", "hard.png": b"b"}
    assert (listing.skipped_members, listing.replaced_members) == (2, 1)
    assert len(listing.problems) == 1
    assert "'lost.png' as a link to 'gone.png'" in listing.problems[0]


def test_names_that_are_not_utf8_can_be_written_to_tables(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", encoding="latin-1", format=tarfile.USTAR_FORMAT
    ) as tar:
        info = tarfile.TarInfo("b\xe4d.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"one"))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    (entry,) = list_archive(str(tmp_path / "a.tar")).entries
    assert entry.image_uri.encode().endswith(rb"b\xe4d.png")
    assert read_entry(entry) == b"one"


def test_a_zip_behind_other_bytes_and_with_a_long_extra_field(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.extra = b"\xfe\xca" + (4000).to_bytes(2, "little") + bytes(4000)
        archive.writestr(info, b"content")
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + out.getvalue())
    (entry,) = list_archive(str(tmp_path / "a.zip")).entries
    assert read_entry(entry) == b"content"


def test_a_picture_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes({"a.png": bytes(100)}))
    (entry,) = list_archive(str(tmp_path / "a.tar")).entries
    with pytest.raises(DataError, match="100 bytes, more than the limit of 99") as caught:
        read_entry(entry, DecodeLimits(max_bytes=99))
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize(
    ("stated", "word"),
    [
        (1000, "has more than its 1000 bytes: it changed .*, or its manifest states a wrong size"),
        (0, "has more than its 0 bytes"),
        (None, "more bytes than the limit"),
    ],
)
def test_no_more_is_read_of_a_file_than_was_stated(
    stated: int | None, word: str, tmp_path: Path
) -> None:
    """A terabyte that takes no place on the disk."""
    huge = tmp_path / "1.png"
    with huge.open("wb") as file:
        file.truncate(2**40)
    entry = ArchiveEntry(str(tmp_path / "m.csv"), str(huge), None, stated)
    with pytest.raises(DataError, match=word) as caught:
        read_entry(entry, DecodeLimits(max_bytes=2**20))
    assert caught.value.kind == ("source" if stated is not None else "too_large")


@pytest.mark.parametrize("stated", [0, 1000, None])
@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_never_ends_or_lets_its_reader_wait_is_not_read(
    kind: str, stated: int | None, tmp_path: Path
) -> None:
    path = "/dev/zero"
    if kind == "pipe":
        path = str(tmp_path / "1.png")
        os.mkfifo(path)
    with pytest.raises(DataError, match=f"{path} is no regular file"):
        read_entry(ArchiveEntry(str(tmp_path / "m.csv"), path, None, stated))
    with pytest.raises(DataError, match=f"{path} is no regular file"):
        read_bytes(path)


def test_an_empty_or_longer_object_is_what_it_is(s3_bucket: str) -> None:
    """A store answers a range of an empty file with an error of its own."""
    store = fsspec.filesystem("s3")
    for content in (b"", b"four"):
        uri = f"{s3_bucket}/1.png"
        store.pipe_file(uri, content)
        for stated in (None, len(content)):
            assert read_entry(ArchiveEntry(f"{s3_bucket}/m.csv", uri, None, stated)) == content
    with pytest.raises(DataError, match="has more than its 3 bytes"):
        read_entry(ArchiveEntry(f"{s3_bucket}/m.csv", uri, None, 3))


def test_no_range_begins_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers such a request with 416; this file system does the same for the test."""
    fs = fsspec.filesystem("memory")
    lenient = type(fs).cat_file

    def strict(self: object, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if start is not None and start >= fs.size(path):
            raise OSError(f"416: range {start}-{end} is not satisfiable")
        return lenient(fs, path, start=start, end=end)

    monkeypatch.setattr(type(fs), "cat_file", strict)
    members = {"empty.png": b"", f"{'n' * 2000}.png": b"first", "last.png": bytes(100_000)}
    for kind, pack in PACKERS.items():
        uri = put(f"memory://{uuid.uuid4().hex}/{kind}", pack(members))
        assert [read_entry(e) for e in list_archive(uri).entries] == list(members.values())
        fs.rm(uri.rpartition("/")[0], recursive=True)
