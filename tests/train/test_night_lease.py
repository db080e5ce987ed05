"""Of two processes that run one command, one is told so; a holder that is gone holds nothing."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.progress import Progress
from nfbmr.train import night_lease
from nfbmr.train.night_lease import held

QUIET = Progress(quiet=True)

HOLD = """
import sys
from nfbmr.progress import Progress
from nfbmr.train import night_lease
night_lease._RENEWED_EVERY_S = 0.2
with night_lease.held(sys.argv[1], "The same command", Progress(quiet=True)):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["disk", "object store"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "command.lease")
    return f"{request.getfixturevalue('s3_bucket')}/command.lease"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_lease, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(night_lease, "_GONE_AFTER_S", 3.0)


def test_a_lease_that_was_given_back_is_free(uri: str) -> None:
    for _ in range(2):
        with held(uri, "It", QUIET):
            pass


def test_a_living_holder_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "command.lease")
    command = [sys.executable, "-c", HOLD, uri]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(OutputError, match=f"It is at work already, as process {holder.pid} on"),
        held(uri, "It", QUIET),
    ):
        pytest.fail("two hold it")
    assert holder.poll() is None
    holder.kill()
    holder.wait()
    with held(uri, "It", QUIET):
        pass
    assert not Path(uri).exists()


def test_a_holder_learns_that_another_took_over(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_lease, "_RENEWED_EVERY_S", 0.1)
    with held(uri, "It", QUIET) as lease:
        assert not lease.is_lost
        storage.write_atomically(uri, b'{"id": "y", "host": "another machine", "pid": 1}')
        for _ in range(100):
            if lease.is_lost:
                break
            time.sleep(0.1)
        assert lease.is_lost
    assert json.loads(storage.read(uri) or b"{}")["id"] == "y"


def test_a_holder_that_stood_still_learns_that_another_came_and_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "lease")
    monkeypatch.setattr(night_lease, "_RENEWED_EVERY_S", 0.1)
    with held(uri, "It", QUIET) as lease:
        Path(uri).unlink()
        wait_until(Path(uri).exists)  # Removed by hand: nobody could have taken it over yet.
        assert not lease.is_lost
        monkeypatch.setattr(night_lease, "_GONE_AFTER_S", -1.0)
        Path(uri).unlink()
        wait_until(lambda: lease.is_lost)
    assert not Path(uri).exists()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_id_means_a_process_only_where_it_was_given(tmp_path: Path) -> None:
    """Two containers of one name: that nobody has this id here says nothing."""
    path = tmp_path / "command.lease"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    values = {"id": "x", "host": socket.gethostname(), "pid": gone.pid, "processes": "elsewhere"}
    path.write_text(json.dumps(values))
    began = time.monotonic()
    with held(str(path), "It", QUIET):
        assert time.monotonic() - began >= night_lease._GONE_AFTER_S


@pytest.mark.parametrize(
    "found", [b'{"id": "x", "host": "another machine", "pid": 1}', b"damage", b"[]"]
)
def test_a_lease_that_nobody_renews_is_taken_over(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / "command.lease"
    path.write_bytes(found)
    with held(str(path), "It", QUIET):
        assert json.loads(path.read_bytes())["id"] != "x"
