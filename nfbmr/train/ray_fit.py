"""One category's fit as a Ray Train run."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from nfbmr.errors import STORE_FAULTS, FeaturesError, NfbmrError, StoreError, WorkerError
from nfbmr.model.runner import best_device
from nfbmr.resources import first_cause
from nfbmr.train.category_task import CategoryTask, FitReport
from nfbmr.train.data_parallel import Workers
from nfbmr.train.device_memory import memory_share
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_capacity import FitShare
from nfbmr.train.process_group import torch_config

_CONTROLLER_RETRIES = 3
"""Ray Train would otherwise wait for ever for workers that the cluster has no room for."""

_ERROR_FILE = "error.json"
_MEMORY_SIGNS = (
    *("OutOfMemory", "out of memory", "low on memory"),
    *("can't allocate memory", "STATUS_ALLOC_FAILED"),
)
"""In what PyTorch, CUDA's libraries and Ray's memory monitor say."""


class Cause(StrEnum):
    """Why a fit failed, by what helps."""

    USER = "user"
    """Pictures, settings, a loss that is no number: trying again gives the same."""
    FEATURES = "features"
    """Features are gone or damaged: computing them again helps."""
    MEMORY = "memory"
    """Out of memory beside others: more room helps."""
    LOST = "lost"
    """A worker or its node is gone, and was again when Ray Train tried once more; or a pass over
    its pictures found no room, or lost what it ran on."""
    PROGRAM = "program"
    """An error of the program."""


@dataclass(frozen=True)
class Fitted:
    """A category's fit that succeeded: where its detector lies, and what it reported."""

    category: str
    checkpoint: Checkpoint
    report: FitReport


@dataclass(frozen=True)
class Failed:
    """A category's fit that did not: the sentence that says why, and what would help.

    Attributes:
        category: the product type.
        error: the sentence.
        cause: by what helps.
        seconds: from its start to its end, all attempts of this run together, waiting for workers
            included.
        losses: the last epoch of every stage that it came to, as far as they are known.
    """

    category: str
    error: str
    cause: Cause = Cause.USER
    seconds: float = 0.0
    losses: tuple[EpochLosses, ...] = ()


@dataclass(frozen=True)
class NotStarted:
    """A category that was not reached before the campaign's time was over."""

    category: str


Outcome = Fitted | Failed | NotStarted


def fit_one(
    task: CategoryTask, share: FitShare, storage_path: str, name: str, board: Any
) -> Outcome:
    """Run one category's fit to its end; blocks. Several of these run in threads of the driver.

    A worker that is killed, or whose node is lost, is started again by Ray Train, and goes on from
    the last state that the fit has kept.

    Args:
        task: what to fit.
        share: workers, and what each takes.
        storage_path: folder or ``s3://`` prefix for Ray Train.
        name: of the run, new for every attempt.
        board: actor that collects the epochs.
    """
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"task": task, "board": board},
        torch_config=torch_config(share.workers),
        scaling_config=ScalingConfig(
            num_workers=share.workers,
            use_gpu=share.gpus > 0,
            resources_per_worker=share.resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            failure_config=FailureConfig(
                max_failures=task.config.night.retries,
                controller_failure_limit=_CONTROLLER_RETRIES,
            ),
        ),
    )
    try:
        result = trainer.fit()
    except (TrainingFailedError, ray.exceptions.RayError) as error:
        return outcome_of_failure(task, error)
    if result.checkpoint is None:
        return Failed(task.category, f"The worker of {task.category!r} reported no detector.")
    return outcome_of(task.category, result.checkpoint)


def outcome_of(category: str, checkpoint: Checkpoint) -> Outcome:
    """What a run has left in its checkpoint."""
    with checkpoint.as_directory() as folder:
        error_file = Path(folder) / _ERROR_FILE
        if error_file.exists():
            values = json.loads(error_file.read_text())
            return Failed(category, values["error"], Cause(values["cause"]))
        return Fitted(category, checkpoint, FitReport.load(Path(folder)))


def _worker(config: dict[str, Any]) -> None:
    """Runs in the Ray Train worker: fit, then hand the detector over as a checkpoint.

    An error that starting again would not mend travels as data in the checkpoint: it is no reason
    to start the worker again, and its sentence must not drown in a traceback.
    """
    from nfbmr.train.category_fit import fit_category  # What the driver need not import.

    task: CategoryTask = replace(config["task"], memory_share=_memory_share())
    board = config["board"]
    workers = Workers.current()
    with tempfile.TemporaryDirectory(prefix="nfbmr-fit-") as temporary:
        folder = Path(temporary)
        try:
            fit_category(
                task,
                folder,
                device=best_device(),
                report=lambda epoch: board.add.remote(task.category, epoch),
            )
        except Exception as error:
            cause = cause_of(error)
            if workers.count > 1 and cause is not Cause.USER:
                raise  # The others may be waiting for this one: Ray Train has to end them, too.
            values = {"cause": cause, "error": _sentence(task.category, cause, error)}
            (folder / _ERROR_FILE).write_text(json.dumps(values))
        checkpoint = Checkpoint.from_directory(temporary) if workers.is_first else None
        ray.train.report({}, checkpoint=checkpoint)


def _memory_share() -> float:
    """The worker's share of its device: fits that begin at once would each take it for free."""
    context = ray.get_runtime_context()
    own = context.get_node_id()
    resources: dict[str, float] = next(
        (node["Resources"] for node in ray.nodes() if node["NodeID"] == own), {}
    )
    return memory_share(context.get_assigned_resources(), resources)


def cause_of(error: BaseException) -> Cause:
    """What an exception of a worker means."""
    import torch

    if isinstance(error, FeaturesError):
        return Cause.FEATURES
    if isinstance(error, StoreError | WorkerError):
        return Cause.LOST
    if isinstance(error, NfbmrError):
        return Cause.USER
    if isinstance(error, STORE_FAULTS):
        return Cause.LOST  # The same command goes on from the last state.
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Cause.MEMORY
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS):
        return Cause.MEMORY
    return Cause.PROGRAM


def _sentence(category: str, cause: Cause, error: BaseException) -> str:
    if isinstance(error, NfbmrError):
        return str(error)
    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if cause is Cause.MEMORY:
        return (
            f"The fit of category {category!r} ran out of memory ({what}). Give it a larger share "
            "(run.gpus_per_fit, run.cpus_per_fit), several workers (night.pictures_per_worker), or "
            "smaller heads."
        )
    return f"The fit of category {category!r} failed: {what}"


def _cause_of_worker(failure: Exception) -> Cause:
    """What a worker's failure means: one that raised nothing itself died, or its node did.

    Ray Train 2.60 keeps what the worker raised in ``_base_exc``, and only there as an object.
    """
    raised = getattr(failure, "_base_exc", None)
    return Cause.LOST if raised is None else cause_of(raised)


def outcome_of_failure(task: CategoryTask, error: Exception) -> Failed:
    """What a run that Ray Train gave up says.

    Args:
        task: that it fitted.
        error: of ``TorchTrainer.fit``.
    """
    times = task.config.night.retries + 1
    failures = getattr(error, "worker_failures", None) or {0: error}
    causes = {_cause_of_worker(failure) for failure in failures.values()}
    reason = first_cause(next(iter(failures.values())))
    if Cause.MEMORY in causes or any(sign in str(error) for sign in _MEMORY_SIGNS):
        cause, what = Cause.MEMORY, "ran out of memory"
    elif Cause.FEATURES in causes:
        cause, what = Cause.FEATURES, "found no features"
    elif causes == {Cause.PROGRAM}:
        cause, what = Cause.PROGRAM, "failed"
    else:
        cause, what = Cause.LOST, "was lost"
    text = f"The worker of category {task.category!r} {what}, {times} times in all: {reason}."
    if cause is not Cause.PROGRAM:  # After which the night has nothing to go on with.
        text += " The fit's last state stays: the same command goes on from there."
    return Failed(task.category, text, cause)
