"""Memory of a run on this machine, sampled while it works: driver, Ray's workers, object store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private.internal_api import node_stats

from nfbmr.errors import ConfigError

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory at one moment.

    Attributes:
        seconds: since the first sample.
        pictures: that were done then.
        driver_bytes: resident memory of the driver.
        workers_bytes: resident memory of all workers that run code, objects that they map included.
        workers: how many they are.
        object_store_bytes: of objects in the object stores of all nodes.
    """

    seconds: float
    pictures: int
    driver_bytes: int
    workers_bytes: int
    workers: int
    object_store_bytes: int


class MemorySampler:
    """Takes samples in a thread of its own. Needs a Ray session whose nodes are on this machine.

    Args:
        pictures: tells how many are done.
        interval_s: between samples.

    Attributes:
        samples: taken so far.

    Raises:
        ConfigError: this system has no ``/proc``, or nodes are on other machines.
    """

    def __init__(self, pictures: Callable[[], int], interval_s: float) -> None:
        if not (_PROC / "self" / "statm").exists():
            raise ConfigError("Memory is read from /proc, which this system does not have.")
        self.samples: list[MemorySample] = []
        self._pictures = pictures
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._raylets = _raylets()
        if len(self._raylets) < sum(node["Alive"] for node in ray.nodes()):
            raise ConfigError(
                "Memory can be read on this machine only, but the cluster has nodes on others: "
                "leave --ray-address out."
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take samples for the length of a block."""
        thread = threading.Thread(target=self._sample, name="nfbmr-memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _sample(self) -> None:
        started = time.monotonic()
        while not self._ended.is_set():
            workers = [_resident_bytes(process) for process in _workers(self._raylets)]
            alive = [size for size in workers if size]
            self.samples.append(
                MemorySample(
                    seconds=time.monotonic() - started,
                    pictures=self._pictures(),
                    driver_bytes=_resident_bytes(os.getpid()),
                    workers_bytes=sum(alive),
                    workers=len(alive),
                    object_store_bytes=_object_store_bytes(),
                )
            )
            self._ended.wait(self._interval_s)


def _resident_bytes(process: int) -> int:
    """Resident memory of a process; 0 if it has ended."""
    try:
        pages = int((_PROC / str(process) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent's id and command of every process."""
    for folder in _PROC.glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
        except (OSError, IndexError):
            continue  # it ended meanwhile
        yield int(folder.name), parent, command


def _raylets() -> set[int]:
    """The processes on this machine that manage the nodes of our cluster."""
    names = {node["RayletSocketName"] for node in ray.nodes() if node["Alive"]}
    return {
        process
        for process, _, command in _processes()
        if command.partition(" ")[0].endswith("raylet") and any(name in command for name in names)
    }


def _workers(raylets: set[int]) -> list[int]:
    """Workers that have something to do: Ray keeps idle ones in store, as many as it likes."""
    return [
        process
        for process, parent, command in _processes()
        if parent in raylets and command.startswith("ray::") and "IDLE" not in command
    ]


def _object_store_bytes() -> int:
    used = 0
    for node in ray.nodes():
        if node["Alive"]:
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
            used += stats.store_stats.object_store_bytes_used
    return used
