"""What a job takes of the cluster: actor pools sized by cores or GPU shares, a quiet Ray Data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from nfbmr.errors import NfbmrError, RegistryError, StoreError, WorkerError
from nfbmr.settings import RunSettings

_OF_WORKERS: tuple[type[NfbmrError], ...] = (StoreError, RegistryError, WorkerError)
"""What a worker says in a whole sentence, with what to do next."""

_NO_GUARD = -1
FETCH_CPUS = 0.25
"""Part of a core that a task takes which mostly waits for bytes: logical, as Ray counts.

As much of every actor's cores is left to such tasks.
"""


def cluster_gpus(run: RunSettings) -> float:
    """GPUs that a job may count on: those of the cluster, or those it can grow to.

    A cluster that starts its GPU nodes on demand has none until somebody asks for one.
    """
    return max(float(run.gpus), float(ray.cluster_resources().get("GPU", 0.0)))


def fitting_actors(run: RunSettings) -> int:
    """How many backbone actors fit what a job may count on: by GPU share, else by cores."""
    gpus = cluster_gpus(run)
    if gpus > 0:
        share = run.gpus_per_actor
        # An actor lies on one card, or on whole ones.
        own = int(gpus) * int(1 / share) if share < 1 else int(gpus / share)
        return max(1, own)
    cpus = float(ray.cluster_resources().get("CPU", 1.0))
    return max(1, int(cpus / run.cpus_per_actor))


def has_room_for_actor(run: RunSettings) -> bool:
    """Whether a node that is up holds a backbone actor, if nobody else is on it."""
    kind, needed = "GPU", run.gpus_per_actor
    if cluster_gpus(run) == 0:
        kind, needed = "CPU", run.cpus_per_actor * (1 - FETCH_CPUS)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(float(node.get(kind, 0.0)) >= needed for node in nodes)


def decode_threads(run: RunSettings) -> int:
    """How many threads decode in a scoring actor."""
    if run.decode_threads > 0:
        return run.decode_threads
    return max(1, int(_cores_beside_gpu(run))) if cluster_gpus(run) > 0 else 1


def _cores_beside_gpu(run: RunSettings) -> float:
    """Cores per GPU actor, on the node with a GPU that has fewest.

    Where no such node has been started yet, as many as ``run.decode_threads`` says.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return min(
        (
            float(node.get("CPU", 0.0)) / max(1, int(node["GPU"] / run.gpus_per_actor))
            for node in nodes
            if node.get("GPU", 0.0) > 0
        ),
        default=float(max(1, run.decode_threads)),
    )


def pool_sizes(
    run: RunSettings, fitting: int, batches: int, *, on_gpus: bool
) -> tuple[int, int, int]:
    """Least, most and first size of a pool of actors.

    Ray makes the first ones before anything else, and keeps the least whatever else waits. On cores
    more than are fitting could leave none to the tasks that fetch, and nothing would ever be done:
    such a pool grows from there, as far as Ray finds cores that no task needs. Actors that wait for
    a GPU take no task's cores, and make the cluster start one.

    Args:
        run: what the user wants.
        fitting: how many the cluster holds now.
        batches: how many there are to work on; more actors than that would stand idle.
        on_gpus: whether an actor takes a GPU or a share of it, and not cores alone.
    """
    most = max(1, min(run.actors_max or max(fitting, run.actors_min), batches))
    least = min(run.actors_min or most, most)
    if not on_gpus:
        least = min(least, fitting)
    return least, most, max(least, min(most, fitting))


def actor_pool(
    run: RunSettings, batches: int, *, decodes: bool = False, calls: int = 1
) -> dict[str, Any]:
    """Arguments of ``map_batches`` for a pool of backbone actors.

    Args:
        run: how many actors are wanted, and what each takes.
        batches: how many there are to work on.
        decodes: whether the actors decode as well; on a GPU node they reserve cores for it then.
        calls: that an actor runs at the same time, each in a thread.
    """
    on_gpus = cluster_gpus(run) > 0
    least, most, first = pool_sizes(run, fitting_actors(run), batches, on_gpus=on_gpus)
    pool = ray.data.ActorPoolStrategy(
        min_size=least,
        max_size=most,
        initial_size=first,
        max_concurrent_calls_per_actor=calls,
        enable_true_multi_threading=calls > 1,
    )
    if not on_gpus:
        return {"compute": pool, "num_cpus": run.cpus_per_actor * (1 - FETCH_CPUS)}
    cores = min(decode_threads(run), _cores_beside_gpu(run)) if decodes else 0.0
    return {
        "compute": pool,
        "num_gpus": run.gpus_per_actor,
        "num_cpus": cores * (1 - FETCH_CPUS),
    }


@contextmanager
def ray_data_session(doing: str, bars: bool = False) -> Iterator[None]:
    """Run Ray Data, and turn a worker's failure into a sentence.

    Ray's own guard against standing still is off: it ends a run after half an hour whatever
    ``run.stall_timeout_s`` says, and knows nothing of lost nodes. ``nfbmr/watchdog.py`` looks.

    Args:
        doing: what is being done, for the sentence.
        bars: show Ray Data's own progress: per stage what is done, running and queued. Only for a
            terminal: in a log it would be pages.

    Raises:
        WorkerError: a task or actor failed; Ray's logs have the whole traceback.
        StoreError: a worker met it.
        RegistryError: a worker met it.
    """
    context = ray.data.DataContext.get_current()
    own = {
        "enable_progress_bars": bars,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": _NO_GUARD,
    }
    before = {name: getattr(context, name) for name in own}
    _set_all(context, own)
    try:
        yield
    except (RayError, SystemException) as error:
        for kind in _OF_WORKERS:
            name = f"{kind.__module__}.{kind.__qualname__}: "
            said = [line for line in str(error).splitlines() if line.startswith(name)]
            if said:
                raise kind(said[-1].removeprefix(name)) from error
        raise WorkerError(
            f"A worker failed while {doing}: {first_cause(error)}. What was finished stays: mend "
            "the cause and run the same command again. The traceback is in Ray's logs."
        ) from error
    finally:
        _set_all(context, before)


def _set_all(context: ray.data.DataContext, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(context, name, value)


def first_cause(error: BaseException) -> str:
    """The line that names the exception at the root of one that Ray raised."""
    traceback = str(error).split("The above exception was the direct cause")[0]
    lines = [line for line in traceback.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*: ", line)]
    return [type(error).__name__, *lines[-1:], *named[-1:]][-1].strip()
