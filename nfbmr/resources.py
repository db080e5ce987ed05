"""What a job takes of the cluster: actor pools sized by cores or GPU shares, a quiet Ray Data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from nfbmr.errors import WorkerError
from nfbmr.settings import RunSettings

_DECODE_SHARE = 0.25
"""Part of a core that an actor on the CPU leaves to decoding tasks: logical, as Ray counts."""


def cluster_gpus() -> float:
    """GPUs of the cluster that Ray is connected to."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def actor_count(run: RunSettings) -> int:
    """How many backbone actors fit the cluster: by GPU share, else by cores."""
    if run.actors > 0:
        return run.actors
    gpus = cluster_gpus()
    if gpus > 0:
        return max(1, int(gpus / run.gpus_per_actor))
    cpus = float(ray.cluster_resources().get("CPU", 1.0))
    return max(1, int(cpus / run.cpus_per_actor))


def actor_pool(run: RunSettings, batches: int) -> dict[str, Any]:
    """Arguments of ``map_batches`` for a pool of backbone actors.

    Args:
        run: how many actors are wanted, and what each takes.
        batches: how many there are to work on; more actors than that would stand idle.
    """
    size = max(1, min(actor_count(run), batches))
    arguments: dict[str, Any] = {"compute": ray.data.ActorPoolStrategy(size=size)}
    if cluster_gpus() > 0:
        return {**arguments, "num_gpus": run.gpus_per_actor}
    return {**arguments, "num_cpus": run.cpus_per_actor * (1 - _DECODE_SHARE)}


@contextmanager
def ray_data_session(doing: str) -> Iterator[None]:
    """Run Ray Data without its own progress output, and turn a worker's failure into a sentence.

    Args:
        doing: what is being done, for the sentence.

    Raises:
        WorkerError: a task or actor failed; Ray's logs have the whole traceback.
    """
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars, context.print_on_execution_start = False, False
    try:
        yield
    except (RayError, SystemException) as error:
        raise WorkerError(
            f"A worker failed while {doing}: {first_cause(error)}. What was finished stays: mend "
            "the cause and run the same command again. The traceback is in Ray's logs."
        ) from error
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before


def first_cause(error: BaseException) -> str:
    """The line that names the exception at the root of one that Ray raised."""
    traceback = str(error).split("The above exception was the direct cause")[0]
    lines = [line for line in traceback.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*: ", line)]
    return [type(error).__name__, *lines[-1:], *named[-1:]][-1].strip()
