"""A local Ray answers only those who know its token, and workers have what they need."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from nfbmr.errors import WorkerError
from nfbmr.process_memory import KEEP_FREED_MEMORY, keep_freed_memory
from nfbmr.resources import first_cause, ray_data_session
from nfbmr.session import ray_session


@pytest.mark.integration
def test_a_stranger_without_the_token_is_turned_away(local_ray: None) -> None:
    address = ray.get_runtime_context().gcs_address
    code = f"import ray; ray.init(address={address!r}, logging_level='ERROR')"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    assert os.environ["RAY_AUTH_MODE"] == "token"
    stranger = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, timeout=120
    )
    assert stranger.returncode != 0
    friend = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert friend.returncode == 0, friend.stderr[-2000:]


def own_listening_ports() -> set[int]:
    """Ports on which this process and its children listen, at whatever address."""
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    listens = "0A"
    ports = {row[9]: int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == listens}
    found = set()
    for process in own_processes():
        for link in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):  # It has ended, or is closed.
                socket = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                if socket is not None and socket[1] in ports:
                    found.add(ports[socket[1]])
    return found


def own_processes() -> set[int]:
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    own = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in own} - own:
        own |= more
    return own


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="not Linux")
@pytest.mark.parametrize(
    ("what", "port"), [("dashboard and job server", 8265), ("Ray's client", 10001)]
)
def test_what_only_a_cluster_needs_is_not_started(local_ray: None, what: str, port: int) -> None:
    assert not ray._private.worker._global_node.webui_url
    gcs_port = int(ray.get_runtime_context().gcs_address.rpartition(":")[2])
    listening = own_listening_ports()
    assert gcs_port in listening, "the test would not see a port"
    assert port not in listening, what


def test_workers_keep_freed_memory(local_ray: None) -> None:
    environment = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    assert {name: environment.get(name) for name in KEEP_FREED_MEMORY} == KEEP_FREED_MEMORY


def test_the_allocator_takes_the_settings() -> None:
    code = "from nfbmr.process_memory import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert callable(keep_freed_memory)


def test_a_session_inside_a_session_is_the_same_one(local_ray: None) -> None:
    before = ray.get_runtime_context().gcs_address
    with ray_session("somewhere.else:6379"):
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


def test_a_cluster_that_is_not_there_is_a_sentence() -> None:
    code = (
        "from nfbmr.session import ray_session\n"
        "from nfbmr.errors import ConfigError\n"
        "try:\n"
        "    with ray_session('127.0.0.1:9'): pass\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "There is no Ray cluster at 127.0.0.1:9" in done.stdout, done.stderr[-2000:]


class _Breaks:
    def __call__(self, batch: object) -> object:
        raise RuntimeError("the device is on fire")


def test_a_failed_worker_is_a_sentence_with_the_cause(local_ray: None) -> None:
    rows = ray.data.from_items([{"a": 1}])
    with (
        pytest.raises(WorkerError, match="while testing: RuntimeError: the device is on fire"),
        ray_data_session("testing"),
    ):
        rows.map_batches(_Breaks, concurrency=1).take_all()


def test_the_first_cause_of_a_plain_error_is_its_text() -> None:
    assert first_cause(RuntimeError("x went wrong")) == "x went wrong"
    assert first_cause(RuntimeError()) == "RuntimeError"
