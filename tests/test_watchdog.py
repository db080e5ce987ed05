"""A pipeline that stalls ends with a sentence; one that lost a node starts anew with the rest."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import pytest

from nfbmr import watchdog
from nfbmr.errors import WorkerError
from nfbmr.score.planned_units import PlannedUnit
from nfbmr.watchdog import Row, finished_rows_of, watched

UNITS = [PlannedUnit(str(n), "bottle", 0, n, 1) for n in range(6)]


def finished_units_of(
    start: Callable[[Sequence[PlannedUnit]], "Pipeline"],
    units: Sequence[PlannedUnit],
    timeout_s: float,
    say: Callable[[str], object],
) -> Iterator[Row]:
    by_name = {unit.name: unit for unit in units}
    return finished_rows_of(start, by_name, itemgetter("unit"), timeout_s, say, "unit")


def stalling(*rows: Row) -> Iterator[Row]:
    yield from rows
    threading.Event().wait()


def test_rows_come_through_and_so_do_errors() -> None:
    assert list(watched(iter([{"n": 1}, {"n": 2}]), 5.0)) == [{"n": 1}, {"n": 2}]

    def failing() -> Iterator[Row]:
        yield {"n": 1}
        raise ZeroDivisionError

    rows = watched(failing(), 5.0)
    assert next(rows) == {"n": 1}
    with pytest.raises(ZeroDivisionError):
        next(rows)


def test_silence_ends_with_a_sentence() -> None:
    rows = watched(stalling({"n": 1}), 0.2)
    assert next(rows) == {"n": 1}
    with pytest.raises(WorkerError, match=r"No unit was finished for 0.2 s .*stall_timeout_s"):
        next(rows)


def test_who_stops_listening_stops_the_work() -> None:
    produced = []

    def producing() -> Iterator[Row]:
        for number in range(10**9):
            produced.append(number)
            yield {"n": number}

    before = set(threading.enumerate())
    rows = watched(producing(), 5.0)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    (reader,) = set(threading.enumerate()) - before
    reader.join(10.0)
    assert not reader.is_alive()


class Pipeline:
    """Finishes so many units, then hangs, as after the loss of a node, or ends."""

    def __init__(self, units: Sequence[PlannedUnit], hangs_after: int | None) -> None:
        self.units, self.hangs_after = units, hangs_after
        self.released = False

    def _create_executor(self) -> "Pipeline":
        return self

    def iter_rows(self) -> Iterator[Row]:
        self._create_executor()
        rows = [{"unit": unit.name} for unit in self.units]
        return iter(rows) if self.hangs_after is None else stalling(*rows[: self.hangs_after])

    def shutdown(self, force: bool) -> None:
        self.released = force


def test_what_a_lost_node_had_in_hand_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"a", "b"}, {"a"}]
    monkeypatch.setattr(watchdog, "LOST_NODE_PATIENCE_S", 0.1)
    monkeypatch.setattr(watchdog, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watchdog, "alive_nodes", lambda: nodes[0] if len(nodes) > 1 else {"a"})
    started: list[Pipeline] = []
    said: list[str] = []

    def start(units: Sequence[PlannedUnit]) -> Pipeline:
        started.append(Pipeline(units, None if started else 4))
        return started[-1]

    rows = finished_units_of(start, UNITS, 20.0, said.append)
    names = [next(rows)["unit"] for _ in range(4)]
    nodes.pop(0)
    names += [row["unit"] for row in rows]
    assert names == [unit.name for unit in UNITS]
    assert [len(pipeline.units) for pipeline in started] == [6, 2]
    assert started[0].released
    assert said == ["A node was lost and nothing comes any more: 2 units start anew"]


def test_without_a_loss_patience_is_the_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOST_NODE_PATIENCE_S", 0.0)
    monkeypatch.setattr(watchdog, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watchdog, "alive_nodes", lambda: {"a"})
    with pytest.raises(WorkerError, match="stalled"):
        list(finished_units_of(lambda units: Pipeline(units, 2), UNITS, 0.5, print))


def test_nodes_that_die_one_after_the_other_do_not_keep_a_run_going(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new node comes for each that an actor's start has killed, and no unit is ever finished."""
    monkeypatch.setattr(watchdog, "LOST_NODE_PATIENCE_S", 0.05)
    monkeypatch.setattr(watchdog, "_LOOK_EVERY_S", 0.02)
    names = itertools.count()
    monkeypatch.setattr(watchdog, "alive_nodes", lambda: {str(next(names))})
    started: list[Pipeline] = []

    def start(units: Sequence[PlannedUnit]) -> Pipeline:
        if len(started) > 100:
            raise AssertionError("it goes on for ever")
        # The first finishes two units: time counts from the last of them.
        started.append(Pipeline(units, 0 if started else 2))
        return started[-1]

    said: list[str] = []
    rows = finished_units_of(start, UNITS, 1.0, said.append)
    assert [next(rows)["unit"] for _ in range(2)] == ["0", "1"]
    with pytest.raises(WorkerError, match=r"No unit was finished for 1 s .*stall_timeout_s"):
        next(rows)
    assert len(started) >= 2
    assert all(pipeline.released for pipeline in started)
    assert len(said) == len(started) - 1
