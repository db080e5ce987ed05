"""A reader sees all of a file or none of it, on a disk and in an object store."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nfbmr import storage, store_folders
from nfbmr.errors import ConfigError


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "root")
    bucket: str = request.getfixturevalue("s3_bucket")
    return storage.join(bucket, "root")


def test_written_is_read_listed_and_removed(root: str) -> None:
    assert storage.read(storage.join(root, "a/one")) is None
    assert store_folders.list_names(storage.join(root, "a")) == []
    storage.write_atomically(storage.join(root, "a/one"), b"1")
    storage.write_atomically(storage.join(root, "a/two"), b"2")
    storage.write_atomically(storage.join(root, "a/deeper/three"), b"3")
    storage.write_atomically(storage.join(root, "a/one"), b"again")
    assert storage.read(storage.join(root, "a/one")) == b"again"
    assert store_folders.list_names(storage.join(root, "a")) == ["one", "two"]
    store_folders.remove_tree(storage.join(root, "a"))
    store_folders.remove_tree(storage.join(root, "a"))
    assert store_folders.list_names(storage.join(root, "a")) == []


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    versions = [bytes([i]) * 400_000 for i in range(20)]
    storage.write_atomically(uri, versions[0])
    stop = threading.Event()
    torn = []

    def look() -> None:
        while not stop.is_set():
            data = storage.read(uri)
            if data not in versions:
                torn.append(data)

    reader = threading.Thread(target=look)
    reader.start()
    for version in versions * 5:
        storage.write_atomically(uri, version)
    stop.set()
    reader.join()
    assert not torn
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("protocol", ["", "file://", "s3://"])
def test_an_address_that_is_not_utf8_is_refused_with_a_sentence(protocol: str) -> None:
    address = protocol + os.fsdecode(b"/scores/gr\xf6\xdfe")
    with pytest.raises(ConfigError, match=r"gr\\xf6\\xdfe is not UTF-8, .*: rename"):
        storage.absolute_uri(address)
    assert storage.absolute_uri("/scores/größe") == "/scores/größe"


def test_paths_become_absolute_and_uris_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute_uri("scores") == str(tmp_path / "scores")
    assert storage.absolute_uri("s3://bucket/scores") == "s3://bucket/scores"
    assert storage.join("s3://bucket/", "/a/", "b") == "s3://bucket/a/b"


def test_of_several_writers_of_a_new_file_one_is_first(root: str) -> None:
    uri = f"{root}/plan.json"
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda i: storage.write_new(uri, bytes([i]) * 1000), range(8)))
    assert first.count(True) == 1
    assert storage.read(uri) == bytes([first.index(True)]) * 1000
    assert store_folders.list_names(root) == ["plan.json"]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("s3://bucket/parts/", "s3://bucket/parts"),
        ("s3a://bucket/parts//", "s3://bucket/parts"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("file:///data/parts/", "/data/parts"),
        ("/data/x/../parts/", "/data/parts"),
    ],
)
def test_one_place_has_one_address(given: str, address: str) -> None:
    """Found in review: with a slash more, two nights were at work on the same data."""
    assert storage.absolute_uri(given) == address


def test_what_must_outlive_a_power_cut_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "unit"
    flushed: list[bool] = []
    real = os.fsync

    def fsync(number: int) -> None:
        flushed.append(target.exists())
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.write_atomically(str(target), b"cache")
    assert flushed == []
    target.unlink()
    storage.write_atomically(str(target), b"unit", durable=True)
    target.unlink()
    with storage.open_atomically(str(target)) as file:
        file.write(b"part")
    target.unlink()
    assert storage.write_new(str(target), b"plan")
    assert flushed == [False, False, False]
    assert target.read_bytes() == b"plan"
