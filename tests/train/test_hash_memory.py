"""What pictures are is remembered by their place and version; what is damaged is forgotten."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.content import content_hash
from nfbmr.train.hash_memory import HashMemory
from tests.train.campaigns import QUIET, Told

URIS = [f"/d/lid/normal/{n}.png" for n in range(9)]
HASHES = {uri: content_hash(uri.encode()) for uri in URIS}
VERSIONS = dict.fromkeys(URIS, "123.5/17")


def memory(root: Path, told: Told | None = None) -> HashMemory:
    return HashMemory(str(root / "hashes"), "/d", VERSIONS, told or QUIET)


def the_file(root: Path) -> Path:
    (found,) = (root / "hashes").iterdir()
    return found


def test_what_has_its_version_still_is_known(tmp_path: Path) -> None:
    assert memory(tmp_path).known("lid", URIS) == {}
    memory(tmp_path).keep("lid", HASHES, {})
    assert memory(tmp_path).known("lid", URIS) == HASHES
    assert memory(tmp_path).known("lid", URIS[:2]) == {uri: HASHES[uri] for uri in URIS[:2]}
    newer = replace(memory(tmp_path), versions=VERSIONS | {URIS[3]: "124.0/17"})
    assert newer.known("lid", [*URIS, "/d/new.png"]).keys() == set(URIS) - {URIS[3]}
    assert memory(tmp_path).known("cup", URIS) == {}
    assert replace(memory(tmp_path), data="/e").known("lid", URIS) == {}


def test_a_store_that_tells_no_time_is_read_every_night(tmp_path: Path) -> None:
    """Of a size alone nothing follows."""
    blind = replace(memory(tmp_path), versions=dict.fromkeys(URIS, "None/17"))
    blind.keep("lid", HASHES, {})
    assert blind.known("lid", URIS) == {}


@given(st.integers(0, 2000), st.binary(max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_damaged_file_counts_as_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    root = tmp_path_factory.mktemp("memory")
    memory(root).keep("lid", HASHES, {})
    file = the_file(root)
    whole = file.read_bytes()
    changed = whole[:place] + damage + whole[place + 1 :]
    file.write_bytes(changed)
    told = Told()
    known = memory(root, told).known("lid", URIS)
    assert known == (HASHES if changed == whole else {})
    assert len(told.lines) == (changed != whole)


@pytest.mark.parametrize("body", [b"[]", b'{"at": "x", "hashes": {}}', b'{"at": 1, "hashes": 1}'])
def test_other_json_with_a_right_digest_counts_as_none(tmp_path: Path, body: bytes) -> None:
    memory(tmp_path).keep("lid", HASHES, {})
    the_file(tmp_path).write_bytes(content_hash(body).encode() + b"\n" + body)
    assert memory(tmp_path).known("lid", URIS) == {}
    memory(tmp_path).keep("lid", HASHES, {})
    assert memory(tmp_path).known("lid", URIS) == HASHES


def test_it_has_tonights_pictures_alone_and_is_written_where_something_is_new(
    tmp_path: Path,
) -> None:
    own = memory(tmp_path)
    own.keep("lid", HASHES, {})
    written = the_file(tmp_path).read_bytes()
    again = memory(tmp_path)
    again.keep("lid", HASHES, again.known("lid", URIS))
    assert the_file(tmp_path).read_bytes() == written
    fewer = {uri: HASHES[uri] for uri in URIS[:2]}
    again.keep("lid", fewer, {})
    assert memory(tmp_path).known("lid", URIS) == fewer
    assert the_file(tmp_path).stat().st_size < len(written)


def test_files_that_nobody_writes_any_more_are_removed(tmp_path: Path) -> None:
    own = memory(tmp_path)
    own.keep("lid", HASHES, {})
    own.forget_old()
    assert own.known("lid", URIS) == HASHES
    long_ago = time.time() - 61 * 86400
    os.utime(the_file(tmp_path), (long_ago, long_ago))
    own.forget_old()
    assert own.known("lid", URIS) == {}


def test_a_place_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text("no folder")
    told = Told()
    own = memory(tmp_path, told)
    own.keep("lid", HASHES, {})
    assert own.known("lid", URIS) == {}
    assert told.lines[0].startswith("warning: What the pictures of lid are is not remembered")
