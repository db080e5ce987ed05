"""What a campaign remembers of itself, on disk and in an object store."""

import time
from pathlib import Path

import pytest

from nfbmr import storage
from nfbmr.train.night import open_night


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "nights")
    return f"{request.getfixturevalue('s3_bucket')}/nights"


def test_the_same_command_goes_on_until_the_night_is_closed(root: str) -> None:
    night = open_night(root, "command")
    assert not night.is_resumed
    fit = night.fit_name("bottle", "0123456789abcdef0123")
    assert night.result(fit) is None
    storage.write_atomically(storage.join(night.states(fit), "fit.safetensors"), b"state")
    storage.write_atomically(storage.join(night.runs, "run-1", "checkpoint", "x"), b"detector")
    night.note_fitted(fit, "run-1", storage.join(night.runs, "run-1", "checkpoint"))

    again = open_night(root, "command")
    assert again.is_resumed
    assert again.started_at == night.started_at
    noted = again.fitted(fit)
    assert noted is not None
    assert storage.read(storage.join(noted["checkpoint"], "x")) == b"detector"
    again.note_result(fit, {"version": "7"})
    assert open_night(root, "command").result(fit) == {"version": "7"}
    assert open_night(root, "command").result(again.fit_name("bottle", "other")) is None
    left = storage.list_tree(again.folder)
    assert set(left) == {"night.json", f"{fit}.result.json"}, "states and runs are removed"

    assert not open_night(root, "another command").is_resumed
    again.close()
    assert not open_night(root, "command").is_resumed


def test_categories_that_had_to_wait_are_remembered(root: str) -> None:
    open_night(root, "command").keep_waiting(frozenset({"cable", "bottle"}))
    assert open_night(root, "command").waited_for == {"bottle", "cable"}


def test_a_night_that_nobody_goes_on_with_is_removed_after_two_weeks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    open_night(root, "abandoned")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 86400)
    open_night(root, "yesterday's")
    assert storage.list_folders(root) == ["abandoned", "yesterday's"]
    monkeypatch.setattr(time, "time", lambda: now + 15 * 86400)
    open_night(root, "today's")
    assert storage.list_folders(root) == ["today's", "yesterday's"]
