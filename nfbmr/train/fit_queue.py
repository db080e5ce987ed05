"""Many fits: as many at once as the cluster holds, the largest first, each by itself."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nfbmr.settings import RunSettings
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_attempt import Attempt, another_attempt, attempted
from nfbmr.train.fit_capacity import FitRoom, FitShare
from nfbmr.train.ray_fit import Cause, Failed, Fitted, NotStarted, Outcome, fit_one

EpochNote = tuple[str, EpochLosses]
_LOOK_EVERY_S = 0.5


class _Board:
    """Collects the epochs that workers finish, for the driver to show."""

    def __init__(self) -> None:
        self.notes: list[EpochNote] = []

    def add(self, category: str, epoch: EpochLosses) -> None:
        self.notes.append((category, epoch))

    def take(self) -> list[EpochNote]:
        notes, self.notes = self.notes, []
        return notes


@dataclass(frozen=True)
class QueueHooks:
    """What a campaign does while fits run.

    Attributes:
        epoch: called with (category, epoch) after every epoch.
        may_start: whether another category may begin now.
        repair: computes the features of a task anew, within the share that its fit has; called
            before its second attempt.
        fitted: called in the fit's own thread with (task, name of the Ray Train run, outcome).
    """

    epoch: Callable[[str, EpochLosses], None] = lambda category, epoch: None
    may_start: Callable[[], bool] = lambda: True
    repair: Callable[[CategoryTask, FitShare], None] = lambda task, share: None
    fitted: Callable[[CategoryTask, str, Fitted], None] = lambda task, run, outcome: None


class _LastEpochs:
    """The last epoch of every stage of every fit under way."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, EpochLosses]] = {}

    def note(self, category: str, epoch: EpochLosses) -> None:
        self._of.setdefault(category, {})[epoch.stage] = epoch

    def put_into(self, outcome: Outcome) -> Outcome:
        """The outcome; a failure with the epochs that its fit had come to."""
        epochs = self._of.pop(outcome.category, {})
        if isinstance(outcome, Failed):
            return replace(outcome, losses=tuple(epochs.values()))
        return outcome


def fit_categories(
    tasks: Sequence[CategoryTask], run: RunSettings, storage_path: str, hooks: QueueHooks
) -> Iterator[Outcome]:
    """Fit every category in its own Ray Train run; yield each outcome as it comes.

    One category's failure never stops the others. What another attempt may mend gets one: a lost
    worker several within its run (``night.retries``) and one more behind the others, damaged
    features one after they were computed anew, and a fit that ran out of memory one with more room.

    Args:
        tasks: what to fit, in the order in which they start; one that needs more room than is
            free lets smaller ones behind it go first. Their features must be in the cache.
        run: resources.
        storage_path: folder or ``s3://`` prefix for Ray Train.
        hooks: what happens meanwhile.
    """
    room = FitRoom(run, len(tasks))
    waiting = [Attempt(task) for task in tasks]
    board, last = _new_board(), _LastEpochs()
    finished: queue.Queue[tuple[Attempt, Outcome]] = queue.Queue()
    running: dict[str, FitShare] = {}
    while waiting or running:
        may_start = bool(waiting) and hooks.may_start()
        for attempt, share in _startable(waiting, running, room) if may_start else []:
            waiting.remove(attempt)
            running[attempt.task.category] = share
            _start(attempt, share, storage_path, board, hooks, finished)
        if not running and not may_start:
            break
        arrived = _arrived(finished)
        for category, epoch in _noted(board):  # First: those of a fit that has failed belong to it.
            last.note(category, epoch)
            hooks.epoch(category, epoch)
        for attempt, outcome in arrived:
            del running[attempt.task.category]
            again = another_attempt(attempt, outcome)
            if again is None:
                yield last.put_into(outcome)
            elif Cause.LOST in again.second_for:
                waiting.append(again)
            else:
                waiting.insert(0, again)
    for attempt in waiting:
        yield last.put_into(attempt.first or NotStarted(attempt.task.category))


def _new_board() -> Any:
    """On the driver's own node where that has room: it should not go with one that is lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Board)
    return board.remote()


def _noted(board: Any) -> list[EpochNote]:
    """The epochs since the last look; none where the board is on its way to another node."""
    try:
        return list(ray.get(board.take.remote()))
    except RayActorError:
        return []


def _startable(
    waiting: Sequence[Attempt], running: Mapping[str, FitShare], room: FitRoom
) -> list[tuple[Attempt, FitShare]]:
    """Those that fit into what is free, from the front; where nothing runs, one in any case."""
    chosen: list[tuple[Attempt, FitShare]] = []
    free = room.slots - sum(share.slots for share in running.values())
    for attempt in waiting:
        if free <= 0:
            break
        task, alone = attempt.task, Cause.MEMORY in attempt.second_for
        share = room.share(len(task.fit_entries), task.config.night, alone)
        if share.slots <= free:
            chosen.append((attempt, share))
            free -= share.slots
    return chosen


def _start(
    attempt: Attempt,
    share: FitShare,
    storage_path: str,
    board: Any,
    hooks: QueueHooks,
    finished: Any,
) -> None:
    """Fit in a thread of this process: Ray Train's controller does the waiting."""
    task = attempt.task

    def fit() -> Outcome:
        name = f"fit-{task.category}-{uuid.uuid4().hex[:12]}"
        if Cause.FEATURES in attempt.second_for:
            hooks.repair(task, share)
        outcome = fit_one(task, share, storage_path, name, board)
        if isinstance(outcome, Fitted):
            hooks.fitted(task, name, outcome)
        return outcome

    def run() -> None:
        finished.put((attempt, attempted(attempt, fit)))

    # A daemon: Ctrl-C must not wait for the fits.
    threading.Thread(target=run, name=f"fit-{task.category}", daemon=True).start()


def _arrived(finished: Any) -> list[tuple[Attempt, Outcome]]:
    """What has finished, after waiting a moment for it."""
    try:
        arrived = [finished.get(timeout=_LOOK_EVERY_S)]
    except queue.Empty:
        return []
    while not finished.empty():
        arrived.append(finished.get())
    return arrived
