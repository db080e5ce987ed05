"""How many requests reading and listing take of an object store, counted at the client."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import fsspec
import pytest
from s3fs.core import S3FileSystem

from nfbmr.data import tree_listing
from nfbmr.data.archives import list_archive, lister_of, read_entry, slices_from
from nfbmr.errors import DataError

COUNT = 30


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that were made, as they are made."""
    made: list[str] = []
    original = S3FileSystem._call_s3

    async def counted(self: S3FileSystem, method: str, *args: object, **more: object) -> object:
        made.append(method)
        return await original(self, method, *args, **more)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    monkeypatch.setattr(S3FileSystem, "call_s3", fsspec.asyn.sync_wrapper(counted))
    return made


def make_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(COUNT):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 5000
            tar.addfile(info, io.BytesIO(bytes([number]) * 5000))
    return out.getvalue()


def make_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"{number}.png", bytes([number]) * 5000)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "make"), [("a.tar", make_tar), ("a.zip", make_zip)])
def test_a_member_takes_one_request_and_no_look_at_the_archive(
    s3_bucket: str, requests: list[str], kind: str, make: Callable[[], bytes]
) -> None:
    uri = f"{s3_bucket}/{kind}"
    store = fsspec.filesystem("s3")
    store.pipe_file(uri, make())
    requests.clear()
    entries = list_archive(uri).entries
    assert sorted(requests) == ["get_object"] * (len(requests) - 1) + ["head_object"]
    assert len(requests) <= 4
    requests.clear()
    for number, entry in enumerate(entries):
        assert read_entry(entry) == bytes([number]) * 5000
    assert requests == ["get_object"] * COUNT
    store.pipe_file(uri, make().replace(bytes([3]) * 9, b"other, ok"))
    for entry in entries:
        with pytest.raises(DataError, match="changed since it was listed") as caught:
            read_entry(entry)
        assert caught.value.kind == "changed"


def test_a_prefix_takes_a_request_per_page_and_one_per_picture(
    s3_bucket: str, requests: list[str]
) -> None:
    store = fsspec.filesystem("s3")
    for number in range(COUNT):
        store.pipe_file(f"{s3_bucket}/p/{number % 3}/deep/{number:02d}.png", b"%d" % number)
    requests.clear()
    entries = list_archive(f"{s3_bucket}/p").entries
    assert len(entries) == COUNT
    assert requests.count("head_object") <= 1
    assert len(requests) <= 16
    requests.clear()
    assert sorted(int(read_entry(entry)) for entry in entries) == list(range(COUNT))
    assert requests == ["get_object"] * COUNT
    store.pipe_file(f"{s3_bucket}/p/0/deep/00.png", b"9")
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(entries[0])


def test_a_large_prefix_is_listed_in_slices_of_bounded_size(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice ends after so many files and names the one that goes on; flat and deep ones do."""
    store = fsspec.filesystem("s3")
    names = [f"{i:03d}.png" for i in range(COUNT)]
    names += [f"deep/{i % 2}/{i:03d}.png" for i in range(COUNT)] + ["notes.txt", "ä b+&.png"]
    for name in names:
        store.pipe_file(f"{s3_bucket}/p/{name}", b"x")
    expected = list_archive(f"{s3_bucket}/p").entries
    monkeypatch.setattr(tree_listing, "FILES_PER_SLICE", 7)
    lister = lister_of(f"{s3_bucket}/p")
    slices = [listing for name in lister.slices for listing in slices_from(lister, name)]
    assert max(len(listing.table) for listing in slices) == 7
    assert len(slices) >= 2 * COUNT / 7
    members = [name for listing in slices for name in listing.table["member"].to_pylist()]
    assert sorted(members) == sorted(name for name in names if name.endswith(".png"))
    assert list_archive(f"{s3_bucket}/p").entries == expected


def test_a_crowded_prefix_is_cut_into_ranges_of_keys(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("s3")
    names = [f"cam{i % 3}-2026-{i:03d}.png" for i in range(3 * COUNT)]
    names += ["cam1-", "cam1-2026-0", "cam1-2026-0.png", "ärger.png", "z/deep/1.png"]
    for name in names:
        store.pipe_file(f"{s3_bucket}/p/{name}", b"x")
    expected = list_archive(f"{s3_bucket}/p").entries
    assert len(expected) == len(names) - 2
    monkeypatch.setattr(tree_listing, "MAX_SEEN", 20)
    for files_per_slice in (1000, 4):
        monkeypatch.setattr(tree_listing, "FILES_PER_SLICE", files_per_slice)
        lister = lister_of(f"{s3_bucket}/p")
        assert len(lister.slices) >= 32
        assert list_archive(f"{s3_bucket}/p").entries == expected
        sizes = [sum(len(part.table) for part in slices_from(lister, n)) for n in lister.slices]
        assert sum(sizes) == len(expected)
        assert max(sizes) <= 12


def test_a_key_with_two_slashes_is_found_wherever_it_is(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("s3")
    names = ["a/1.png", "a//2.png", "/3.png", "a/b//c/4.png", "d/5.png"]
    for name in names:
        store.call_s3("put_object", Bucket=s3_bucket[5:], Key=f"p/{name}", Body=name.encode())
    for seen in (2000, 1):
        monkeypatch.setattr(tree_listing, "MAX_SEEN", seen)
        entries = list_archive(f"{s3_bucket}/p").entries
        assert sorted(entry.member for entry in entries) == sorted(names)
        assert [read_entry(entry).decode() for entry in entries] == [e.member for e in entries]


def test_a_prefix_of_many_folders_is_not_a_request_for_each(
    s3_bucket: str, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("s3")
    names = [f"{s3_bucket}/p/serial-{number:04d}/1.png" for number in range(20 * COUNT)]
    store.pipe(dict.fromkeys(names, b"x"))
    monkeypatch.setattr(tree_listing, "MAX_SEEN", COUNT)
    requests.clear()
    assert len(list_archive(f"{s3_bucket}/p").entries) == len(names)
    assert len(requests) < len(names) / 2


def test_pages_of_a_prefix_are_followed(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten keys a page instead of a thousand."""
    store = fsspec.filesystem("s3")
    for number in range(COUNT):
        store.pipe_file(f"{s3_bucket}/p/{number:02d}.png", b"x")
    original = S3FileSystem.call_s3

    def small(self: S3FileSystem, method: str, **more: object) -> object:
        return original(self, method, **more, MaxKeys=10)

    monkeypatch.setattr(S3FileSystem, "call_s3", small)
    pages: Iterator[object] = tree_listing.children(store, f"{s3_bucket[5:]}/p")
    assert len(list(pages)) == COUNT
