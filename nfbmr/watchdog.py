"""The watch over a running pipeline: one that stalls ends, one that lost a node starts anew.

Ray restarts an actor of a node that died elsewhere, if there is room. Where there is none, what the
actor had in hand waits for ever (Ray 2.60), even while other actors stand idle.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from nfbmr.errors import StallError

Row = dict[str, Any]
Item = TypeVar("Item")

LOST_NODE_PATIENCE_S = 60.0
"""So long after a node was lost nothing may be finished, before what is left starts anew."""

_LOOK_EVERY_S = 5.0


class Running(Protocol):
    """A pipeline at work: a ``ray.data.Dataset``."""

    def iter_rows(self) -> Iterator[Row]:
        """A row for each item that is finished."""
        ...

    def _create_executor(self) -> Any:
        """What Ray calls when the first row is asked for (``Dataset`` of Ray 2.60)."""
        ...


class NodeLostError(Exception):
    """A node died, and since then nothing comes."""


def finished_rows_of(
    start: Callable[[Sequence[Item]], Running],
    items: Mapping[Any, Item],
    key_of: Callable[[Row], Hashable],
    timeout_s: float,
    say: Callable[[str], object],
    noun: str,
) -> Iterator[Row]:
    """A row for each item, as they are finished.

    Args:
        start: makes the pipeline for items, sized for the nodes that are there.
        items: that are to be done, by their keys.
        key_of: tells which item a row is of.
        timeout_s: so long nothing may be finished, however often items start anew meanwhile.
        say: told when items start anew.
        noun: what an item is, for sentences.

    Raises:
        StallError: see ``watched``.
    """
    missing = dict(items)
    since = time.monotonic()
    while missing:
        lost = lost_nodes(alive_nodes())
        running = start(list(missing.values()))
        executors = _executors_of(running)
        try:
            for row in watched(running.iter_rows(), timeout_s, lost, since, noun):
                missing.pop(key_of(row), None)
                yield row
                since = time.monotonic()
            return
        except NodeLostError:
            say(f"A node was lost and nothing comes any more: {len(missing)} {noun}s start anew")
            _release(executors)
        except StallError:
            _release(executors)
            raise


def alive_nodes() -> set[str]:
    """The nodes of the cluster."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def lost_nodes(before: set[str]) -> Callable[[], set[str]]:
    """Tells which of the nodes are gone."""
    return lambda: before - alive_nodes()


def _executors_of(running: Running) -> list[Any]:
    """Is filled with what runs a pipeline, once it begins; Ray remembers it after the first row."""
    made: list[Any] = []
    create = running._create_executor

    def remember() -> Any:
        made.append(create())
        return made[-1]

    running._create_executor = remember  # type: ignore[method-assign]
    return made


def _release(executors: Sequence[Any]) -> None:
    """Give back the actors and tasks of a pipeline that does not end by itself.

    Ray offers that for a finished iterator alone; this is what it calls then.
    """
    for executor in executors:
        executor.shutdown(force=True)


def watched(
    rows: Iterator[Row],
    timeout_s: float,
    lost: Callable[[], object] = lambda: None,
    since: float | None = None,
    noun: str = "unit",
) -> Iterator[Row]:
    """The rows, as long as they keep coming.

    Args:
        rows: taken in a thread of their own.
        timeout_s: so long nothing may come.
        lost: says whether a node is gone.
        since: when the last row of an earlier pipeline came, ``time.monotonic()``; by default the
            time for the first row counts from now.
        noun: what a row is of, for the sentence.

    Raises:
        StallError: nothing came for so long; what was committed stays.
        NodeLostError: a node is gone and nothing came for ``LOST_NODE_PATIENCE_S``.
    """
    arrived: queue.Queue[tuple[str, Any]] = queue.Queue()
    unwanted = threading.Event()

    def read() -> None:
        try:
            for row in rows:
                arrived.put(("row", row))
                if unwanted.is_set():  # the run ended with an error: let go of Ray's executor
                    return
            arrived.put(("end", None))
        except BaseException as error:  # handed to the thread that waits
            arrived.put(("error", error))

    threading.Thread(target=read, name="nfbmr-rows", daemon=True).start()
    try:
        while True:
            kind, value = _next(arrived, timeout_s, lost, since, noun)
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
            since = None
    finally:
        unwanted.set()


def _next(
    arrived: queue.Queue[tuple[str, Any]],
    timeout_s: float,
    lost: Callable[[], object],
    since: float | None,
    noun: str,
) -> tuple[str, Any]:
    started = time.monotonic()
    deadline = (started if since is None else since) + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            return arrived.get(timeout=min(left_s, _LOOK_EVERY_S))
        except queue.Empty:
            if time.monotonic() - started > LOST_NODE_PATIENCE_S and lost():
                raise NodeLostError from None
    raise StallError(
        f"No {noun} was finished for {timeout_s:g} s (run.stall_timeout_s): the run has stalled. "
        "What was finished stays; look at the cluster's nodes, then run the same command again."
    )
