"""What a campaign remembers of itself, on disk and in an object store."""

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr import storage, store_folders
from nfbmr.progress import Progress
from nfbmr.train.night import open_night

QUIET = Progress(quiet=True)


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "nights")
    return f"{request.getfixturevalue('s3_bucket')}/nights"


def test_the_same_command_goes_on_until_the_night_is_closed(root: str) -> None:
    night = open_night(root, "command", QUIET)
    assert not night.is_resumed
    fit = night.fit_name("bottle", "0123456789abcdef0123")
    assert night.result(fit) is None
    storage.write_atomically(storage.join(night.states(fit), "fit.safetensors"), b"state")
    storage.write_atomically(storage.join(night.runs, "run-1", "checkpoint", "x"), b"detector")
    night.note_fitted(fit, "run-1", storage.join(night.runs, "run-1", "checkpoint"))

    again = open_night(root, "command", QUIET)
    assert again.is_resumed
    assert again.started_at == night.started_at
    noted = again.fitted(fit)
    assert noted is not None
    assert storage.read(storage.join(noted["checkpoint"], "x")) == b"detector"
    again.note_result(fit, {"version": "7"})
    assert open_night(root, "command", QUIET).result(fit) == {"version": "7"}
    assert open_night(root, "command", QUIET).result(again.fit_name("bottle", "other")) is None
    left = store_folders.list_tree(again.folder)
    assert set(left) == {"night.json", f"{fit}.result.json"}, "states and runs are removed"

    assert not open_night(root, "another command", QUIET).is_resumed
    again.close()
    assert not open_night(root, "command", QUIET).is_resumed


def test_a_long_name_has_files_too(tmp_path: Path) -> None:
    """Found in review: the file system refused names of more than 255 bytes, every night."""
    night = open_night(str(tmp_path), "command", QUIET)
    names = {night.fit_name(letter * 190, "0" * 32) for letter in "abü"}
    assert len(names) == 3
    for name in names:
        night.note_result(name, {"version": "7"})
        assert night.result(name) == {"version": "7"}
    assert night.fit_name("bottle", "0" * 32) == "bottle." + "0" * 16


def test_what_is_left_of_fits_that_are_gone_is_removed(root: str) -> None:
    """A category that fails every night must not make the night's folder grow for ever."""
    night = open_night(root, "command", QUIET)
    kept, gone, done = (night.fit_name("bottle.2", digit * 16) for digit in "012")
    spared = night.fit_name("cable", "3" * 16)
    for fit in (kept, gone, spared):
        storage.write_atomically(storage.join(night.states(fit), "fit.safetensors"), b"state")
        storage.write_atomically(storage.join(night.runs, f"run-{fit}", "x"), b"detector")
        night.note_fitted(fit, f"run-{fit}", storage.join(night.runs, f"run-{fit}"))
    night.note_result(done, {"version": "7"})
    night.forget_others({"bottle.2": kept}, {"cable"})
    assert set(store_folders.list_tree(night.folder)) == {
        "night.json",
        *(f"{fit}.fitted.json" for fit in (kept, spared)),
        *(f"{fit}/fit.safetensors" for fit in (kept, spared)),
        *(f"runs/run-{fit}/x" for fit in (kept, spared)),
    }


@settings(deadline=None)
@given(
    category=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1),
    repeated=st.integers(1, 40),
)
def test_what_is_left_is_told_apart_by_any_name(category: str, repeated: int) -> None:
    """A long name's files have a shortened one: its fits were taken for gone."""
    category *= repeated
    with tempfile.TemporaryDirectory() as folder:
        night = open_night(folder, "command", QUIET)
        now, before = (night.fit_name(category[:150], digit * 16) for digit in "01")
        for fit in (now, before):
            night.note_result(fit, {"version": "7"})
        night.forget_others({}, {category[:150]})
        assert set(night.results()) == {now, before}, "spared"
        night.forget_others({category[:150]: now}, set())
        assert set(night.results()) == {now}


def test_a_night_is_over_some_time_after_it_began(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A category that fails every night must not show last month's rows of all others."""
    night = open_night(root, "command", QUIET, 20)
    done, unfinished, fitted = (night.fit_name(name, "0" * 16) for name in "abc")
    night.note_result(done, {"version": "7"})
    storage.write_atomically(storage.join(night.states(unfinished), "fit.safetensors"), b"state")
    night.note_fitted(fitted, "run-1", storage.join(night.runs, "run-1", "checkpoint"))
    night.keep_waiting(frozenset({"cable"}))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 19.9 * 3600)
    again = open_night(root, "command", QUIET, 20)
    assert again.is_resumed
    assert again.results() == {done: {"version": "7"}}
    monkeypatch.setattr(time, "time", lambda: now + 20.1 * 3600)
    new = open_night(root, "command", QUIET, 20)
    assert not new.is_resumed
    assert new.started_at == now + 20.1 * 3600
    assert new.results() == {}
    assert store_folders.list_names(new.states(unfinished)) == ["fit.safetensors"]
    assert new.fitted(fitted) is not None
    assert new.waited_for == {"cable"}
    assert open_night(root, "command", QUIET, 20).is_resumed


def test_categories_that_had_to_wait_are_remembered(root: str) -> None:
    open_night(root, "command", QUIET).keep_waiting(frozenset({"cable", "bottle"}))
    assert open_night(root, "command", QUIET).waited_for == {"bottle", "cable"}


def test_a_night_that_nobody_goes_on_with_is_removed_after_two_weeks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    open_night(root, "abandoned", QUIET)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 86400)
    open_night(root, "yesterday's", QUIET)
    assert store_folders.list_folders(root) == ["abandoned", "yesterday's"]
    monkeypatch.setattr(time, "time", lambda: now + 15 * 86400)
    open_night(root, "today's", QUIET)
    assert store_folders.list_folders(root) == ["today's", "yesterday's"]


def test_a_night_that_is_gone_on_with_every_day_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, now = str(tmp_path), time.time()
    began = open_night(root, "long", QUIET, 20 * 24).started_at
    for day in range(1, 20):
        monkeypatch.setattr(time, "time", lambda day=day: now + day * 86400)
        assert open_night(root, "long", QUIET, 20 * 24).started_at == began
    open_night(root, "another", QUIET)
    assert store_folders.list_folders(root) == ["another", "long"]


def test_damaged_files_of_a_night_are_as_good_as_none(root: str) -> None:
    night = open_night(root, "command", QUIET)
    night.note_result("bottle.1", {"version": "7"})
    storage.write_atomically(storage.join(night.folder, "bottle.1.result.json"), b"{cut o")
    storage.write_atomically(storage.join(night.folder, "cable.1.fitted.json"), b"[]")
    again = open_night(root, "command", QUIET)
    assert again.is_resumed
    assert again.result("bottle.1") is None
    assert again.fitted("cable.1") is None
    for damage in (b"", b"[1]", b'{"started_at": "soon", "waited_for": []}', b'{"started_at": 1}'):
        storage.write_atomically(storage.join(root, "command", "night.json"), damage)
        open_night(root, "another", QUIET)
        assert not open_night(root, "command", QUIET).is_resumed
