"""A night belongs to one process at a time: two would fit onto the same files.

The holder renews its lease. Who finds the lease of another watches it: one that is renewed is held,
one that is not is of a process that is gone, and is taken over. No clocks are compared.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nfbmr import storage, store_folders
from nfbmr.errors import STORE_FAULTS, OutputError, StoreError
from nfbmr.progress import Progress

_RENEWED_EVERY_S = 15.0
_GONE_AFTER_S = 60.0
_LOOK_EVERY_S = 3.0


class Lease:
    """What a holder sees of its lease.

    Attributes:
        is_lost: whether another process took it over, because this one stood still for too long.
    """

    def __init__(self) -> None:
        self.is_lost = False


@contextmanager
def held(uri: str, what: str, progress: Progress) -> Iterator[Lease]:
    """Hold a lease.

    Args:
        uri: of its file.
        what: is held, for messages.
        progress: told while it waits to see whether another holder is alive.

    Raises:
        OutputError: another process holds it.
    """
    lease = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
    lease |= {"processes": _process_space()}
    _take(uri, lease, what, progress)
    done = threading.Event()
    mine = Lease()

    def lost(by: str) -> None:
        mine.is_lost = True
        progress.say(f"{what} was taken over by {by}: nothing more is begun here")

    renewing = threading.Thread(target=_renew, args=(uri, lease, done, lost), daemon=True)
    renewing.start()
    try:
        yield mine
    finally:
        done.set()
        renewing.join()
        with suppress(*STORE_FAULTS, StoreError):  # Left behind, it holds nothing for long.
            if _holder(uri).get("id") == lease["id"]:
                folder, _, name = uri.rpartition("/")
                store_folders.remove_files(folder, [name])


def _take(uri: str, lease: dict[str, Any], what: str, progress: Progress) -> None:
    if storage.write_new(uri, _bytes(lease, 0)):
        return
    other = _holder(uri)
    if not _has_ended(other):
        progress.say(f"{what} was begun by {_name(other)}: looking whether that is still at work")
        _watch(uri, other, what)
    storage.write_atomically(uri, _bytes(lease, 0))
    if _holder(uri).get("id") != lease["id"]:
        raise _refusal(what, _holder(uri))


def _watch(uri: str, other: dict[str, Any], what: str) -> None:
    """Wait until a lease has not been renewed for long enough.

    Raises:
        OutputError: it was renewed.
    """
    end = time.monotonic() + _GONE_AFTER_S
    while time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
        now = _holder(uri)
        if not now:
            return
        if now != other:
            raise _refusal(what, now)


def _refusal(what: str, other: dict[str, Any]) -> OutputError:
    return OutputError(
        f"{what} is at work already, as {_name(other)}: wait until it ends, or end it first."
    )


def _has_ended(other: dict[str, Any]) -> bool:
    """Whether the holder is known to be gone: nobody, or a process of this machine that ended."""
    if not other:
        return True
    if (other.get("host"), other.get("processes")) != (socket.gethostname(), _process_space()):
        return False
    try:
        os.kill(int(other["pid"]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, ValueError, PermissionError):
        return False
    return False


def _process_space() -> str:
    """Where a process id means this process: the machine since it started, and its container."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return f"{boot.read_text().strip()} {namespace.readlink()}"
    except OSError:  # Not Linux.
        return ""


def _renew(
    uri: str, lease: dict[str, Any], done: threading.Event, lost: Callable[[str], None]
) -> None:
    renewals, renewed_at = 0, time.time()
    while not done.wait(_RENEWED_EVERY_S):
        renewals += 1
        with suppress(*STORE_FAULTS, StoreError):  # A busy store: the next renewal comes soon.
            now = _holder(uri)
            if now.get("id", lease["id"]) != lease["id"]:
                lost(_name(now))
                return
            if not now and time.time() - renewed_at > _GONE_AFTER_S:
                lost("another process, which has ended since")
                return
            storage.write_atomically(uri, _bytes(lease, renewals))
            renewed_at = time.time()


def _holder(uri: str) -> dict[str, Any]:
    """What the lease says; nothing where there is none, or none that can be read."""
    data = storage.read(uri)
    try:
        values = json.loads(data or b"{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _bytes(lease: dict[str, Any], renewals: int) -> bytes:
    return json.dumps({**lease, "renewals": renewals}).encode()


def _name(other: dict[str, Any]) -> str:
    return f"process {other.get('pid')} on {other.get('host')}"
