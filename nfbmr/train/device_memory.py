"""How much memory a device has left, and how much of it is a worker's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Files:
    """Where a version of Linux' control groups says what a container may take and has taken.

    Attributes:
        limit: file with the limit in bytes.
        used: file with what is taken, the page cache included.
        stat: file with what that consists of.
        cache: its lines of file pages that the kernel gives up before it refuses memory; shared
            memory (tmpfs, Ray's object store) and locked pages are not among them.
    """

    limit: str
    used: str
    stat: str
    cache: frozenset[str]


_VERSIONS = (
    _Files(
        "memory.max",
        "memory.current",
        "memory.stat",
        frozenset({"inactive_file", "active_file"}),
    ),
    _Files(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        frozenset({"total_inactive_file", "total_active_file"}),
    ),
)


def free_memory_bytes(device: torch.device) -> int:
    """Memory that could be allocated on a device now.

    Of the CPU it is what the system calls available, no more than the container's limit leaves.
    Where neither is known (not Linux), 4 GiB are assumed.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    known = [value for value in (_available_bytes(), left_in_container_bytes()) if value]
    return min(known, default=4 * 2**30)


def memory_share(assigned: Mapping[str, float], node: Mapping[str, float]) -> float:
    """A worker's share of its device's memory, 0 to 1.

    Args:
        assigned: resources that Ray has given to the worker.
        node: those that its node offers. Of cores it is these that are divided among workers: a
            container that may use 4 of a host's 64 offers 4.
    """
    if assigned.get("GPU"):
        return min(1.0, float(assigned["GPU"]))
    cpus = float(assigned.get("CPU", 1.0))
    return min(1.0, cpus / max(cpus, float(node.get("CPU", 0.0)), 1.0))


def _available_bytes() -> int | None:
    if not _MEMINFO.exists():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def left_in_container_bytes(root: Path = _CGROUP) -> int | None:
    """What a container's limit leaves, its page cache counted as free; None without a limit.

    Reading files fills what a container "uses" up to its limit, but the kernel takes those pages
    back as soon as a program asks for memory.

    Args:
        root: where control groups are mounted, version 2 or 1.
    """
    for files in _VERSIONS:
        limit, used = root / files.limit, root / files.used
        if not (limit.exists() and used.exists()):
            continue
        text = limit.read_text().strip()
        if text == "max":
            return None
        taken = int(used.read_text()) - _reclaimable_bytes(root / files.stat, files.cache)
        return max(1, int(text) - max(0, taken))
    return None


def _reclaimable_bytes(stat: Path, names: frozenset[str]) -> int:
    if not stat.exists():
        return 0
    lines = (line.partition(" ") for line in stat.read_text().splitlines())
    return sum(int(value) for name, _, value in lines if name in names)
