"""One category's fit as a Ray Train run, and many of them at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from nfbmr.errors import FitError, NfbmrError
from nfbmr.model.runner import best_device
from nfbmr.resources import cluster_gpus
from nfbmr.settings import RunSettings
from nfbmr.train.category_fit import CategoryTask, FitReport, fit_category
from nfbmr.train.fit import EpochLosses


@dataclass(frozen=True)
class Fitted:
    """A category's fit that succeeded: where its detector lies, and what it reported."""

    category: str
    checkpoint: Checkpoint
    report: FitReport


@dataclass(frozen=True)
class Failed:
    """A category's fit that did not: the sentence that says why."""

    category: str
    error: str


Outcome = Fitted | Failed
EpochNote = tuple[str, EpochLosses]


class _Board:
    """Collects the epochs that workers finish, for the driver to show."""

    def __init__(self) -> None:
        self.notes: list[EpochNote] = []

    def add(self, category: str, epoch: EpochLosses) -> None:
        self.notes.append((category, epoch))

    def take(self) -> list[EpochNote]:
        notes, self.notes = self.notes, []
        return notes


def _worker(config: dict[str, Any]) -> None:
    """Runs in the Ray Train worker: fit, then hand the detector over as a checkpoint.

    An error that a user can mend travels as data in the report: it is no reason to start the
    worker again, and its sentence must not drown in a traceback.
    """
    task: CategoryTask = config["task"]
    board = config["board"]
    with tempfile.TemporaryDirectory(prefix="nfbmr-fit-") as folder:
        try:
            fit_category(
                task,
                Path(folder),
                device=best_device(),
                report=lambda epoch: board.add.remote(task.category, epoch),
            )
        except NfbmrError as error:
            (Path(folder) / _ERROR_FILE).write_text(str(error))
        ray.train.report({}, checkpoint=Checkpoint.from_directory(folder))


_ERROR_FILE = "error.txt"


def _fit_one(task: CategoryTask, run: RunSettings, storage_path: str, board: Any) -> Outcome:
    """Drives one ``TorchTrainer``; several of these run side by side on a cluster."""
    on_gpu = cluster_gpus(run) > 0
    resources = {"GPU": run.gpus_per_fit} if on_gpu else {"CPU": run.cpus_per_fit}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"task": task, "board": board},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=on_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"fit-{task.category}-{ray.get_runtime_context().get_task_id()}",
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=1),
        ),
    )
    result = trainer.fit()
    if result.checkpoint is None:
        return Failed(task.category, f"The worker of {task.category!r} reported no detector.")
    with result.checkpoint.as_directory() as folder:
        error_file = Path(folder) / _ERROR_FILE
        if error_file.exists():
            return Failed(task.category, error_file.read_text())
        return Fitted(task.category, result.checkpoint, FitReport.load(Path(folder)))


def cpus_of_fit(run: RunSettings, categories: int) -> float:
    """Cores of one category's fit on a cluster without GPUs."""
    if run.cpus_per_fit > 0:
        return run.cpus_per_fit
    largest_node = max(node["Resources"].get("CPU", 1.0) for node in ray.nodes() if node["Alive"])
    share = ray.cluster_resources().get("CPU", 1.0) // max(1, categories)
    return float(max(1.0, min(share, largest_node)))


def fits_at_once(run: RunSettings, categories: int) -> int:
    """How many of so many categories the cluster can fit at the same time."""
    gpus = cluster_gpus(run)
    if gpus > 0:
        return max(1, int(gpus / run.gpus_per_fit))
    cores = ray.cluster_resources().get("CPU", 1.0)
    return max(1, int(cores / cpus_of_fit(run, categories)))


def fit_categories(
    tasks: Sequence[CategoryTask],
    run: RunSettings,
    storage_path: str,
    progress: Callable[[str, EpochLosses], None] = lambda category, epoch: None,
) -> Iterator[Outcome]:
    """Fit every category in its own Ray Train run; yield each outcome as it comes.

    Categories with most pictures start first, so that none of them is alone at the end. One
    category's failure never stops the others.

    Args:
        tasks: what to fit; their features must be in the cache.
        run: resources.
        storage_path: folder or ``s3://`` prefix for Ray Train's checkpoints.
        progress: called with (category, epoch) after every epoch.
    """
    waiting = sorted(tasks, key=lambda task: len(task.fit_entries))
    fit_one = ray.remote(num_cpus=0, max_retries=0)(_fit_one)
    board = ray.remote(num_cpus=0)(_Board).remote()
    running: dict[Any, str] = {}
    run = replace(run, cpus_per_fit=cpus_of_fit(run, len(tasks)))
    limit = fits_at_once(run, len(tasks))
    while waiting or running:
        while waiting and len(running) < limit:
            task = waiting.pop()
            running[fit_one.remote(task, run, storage_path, board)] = task.category
        done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for category, epoch in ray.get(board.take.remote()):
            progress(category, epoch)
        for reference in done:
            yield _outcome(reference, running.pop(reference))


def _outcome(reference: Any, category: str) -> Outcome:
    """The outcome of a finished task; Ray's own failures become sentences too."""
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        reason = FitError(f"The fit of category {category!r} failed: {_last_line(error)}")
        return Failed(category, str(reason))
    except ray.exceptions.RayError as error:
        return Failed(category, f"The worker of category {category!r} was lost: {error}")
    return outcome


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
