"""What one fit takes of the cluster, and how many fits that holds at the same time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from nfbmr.resources import cluster_gpus
from nfbmr.settings import NightSettings, RunSettings

_COUNT_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class FitShare:
    """What a fit takes.

    Attributes:
        workers: that do every step together.
        cpus: cores of each, on a cluster without GPUs.
        gpus: share of a GPU of each, on a cluster with GPUs; 0 without.
        slots: places it takes of those that ``slots_of`` counts.
    """

    workers: int
    cpus: float
    gpus: float
    slots: int

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker, as Ray Train takes them."""
        return {"GPU": self.gpus} if self.gpus > 0 else {"CPU": self.cpus}


def share_of(
    pictures: int, slots: int, run: RunSettings, night: NightSettings, categories: int
) -> FitShare:
    """The share of a category of so many pictures: several workers where it is large.

    Args:
        pictures: that it is fitted on.
        slots: that the cluster has.
        run: cores or share of a GPU of one worker.
        night: when a category gets several.
        categories: that are to be fitted in all.
    """
    wanted = min(night.workers_max, math.ceil(pictures / night.pictures_per_worker))
    cpus = cpus_of_fit(run, categories)
    if cluster_gpus(run) == 0:
        workers = max(1, min(wanted, slots))
        return FitShare(workers, cpus, 0.0, workers)
    per_gpu = _fits_in_one_gpu(run.gpus_per_fit)
    together = min(wanted, slots // per_gpu)
    if together > 1:  # NCCL refuses two workers of one group on the same GPU.
        return FitShare(together, cpus, max(1.0, run.gpus_per_fit), together * per_gpu)
    return FitShare(1, cpus, run.gpus_per_fit, 1)


def undivided(share: FitShare, slots: int) -> FitShare:
    """The share of a fit that ran out of memory beside others: a whole GPU, or the cluster alone.

    Args:
        share: that was too small.
        slots: that the cluster has.
    """
    if 0 < share.gpus < 1:
        per_worker = _fits_in_one_gpu(share.gpus)
        return FitShare(share.workers, share.cpus, 1.0, min(slots, share.workers * per_worker))
    return FitShare(share.workers, share.cpus, share.gpus, slots)


def within(share: FitShare, run: RunSettings) -> RunSettings:
    """The settings of a pass over pictures whose backbone actors fit into the place of a fit.

    Args:
        share: what the fit takes.
        run: what a pass takes that has the cluster to itself.
    """
    cpus = max(1, min(run.cpus_per_actor, int(share.cpus)))
    gpus = run.gpus_per_actor
    if share.gpus > 0:
        gpus = min(gpus, share.gpus)
        actors = int(share.gpus / gpus + 1e-9)
    else:
        actors = max(1, int(share.cpus / cpus))
    actors *= share.workers
    if run.actors_max > 0:
        actors = min(actors, run.actors_max)
    return replace(run, cpus_per_actor=cpus, gpus_per_actor=gpus, actors_max=actors, actors_min=0)


class FitRoom:
    """The room that the cluster has for fits, counted again while they run: nodes come and go.

    A worker's cores are settled in the beginning, from the nodes there are then; and where there
    are GPUs then, fits go on waiting for one.

    Args:
        run: resources.
        fits: how many there are to do.
    """

    def __init__(self, run: RunSettings, fits: int) -> None:
        self._fits = fits
        self._on_gpus = cluster_gpus(run) > 0
        self._run = replace(run, cpus_per_fit=cpus_of_fit(run, fits))
        self._counted = -math.inf
        self._slots = 1

    @property
    def slots(self) -> int:
        """Places in all, counted anew every few seconds."""
        if time.monotonic() - self._counted >= _COUNT_EVERY_S:
            self._slots = slots_of(self._run_now(), self._fits)
            self._counted = time.monotonic()
        return self._slots

    def share(self, pictures: int, night: NightSettings, alone: bool) -> FitShare:
        """What a fit gets of the room as it is now.

        Args:
            pictures: that it is fitted on.
            night: when a category gets several workers.
            alone: whether it ran out of memory beside others.
        """
        share = share_of(pictures, self.slots, self._run_now(), night, self._fits)
        return undivided(share, self.slots) if alone else share

    def _run_now(self) -> RunSettings:
        """The settings; where all GPUs are gone, one of them is waited for."""
        if self._on_gpus and cluster_gpus(self._run) == 0:
            return replace(self._run, gpus=1)
        return self._run


def cpus_of_fit(run: RunSettings, categories: int) -> float:
    """Cores of one worker on a cluster without GPUs."""
    if run.cpus_per_fit > 0:
        return run.cpus_per_fit
    nodes = _alive()
    largest_node = max((node.get("CPU", 1.0) for node in nodes), default=1.0)
    share = sum(node.get("CPU", 0.0) for node in nodes) // max(1, categories)
    return float(max(1.0, min(share, largest_node)))


def slots_of(run: RunSettings, categories: int) -> int:
    """How many workers the cluster holds at the same time.

    Counted node by node and GPU by GPU: two shares of 0.4 fit one GPU, five do not fit two.
    """
    if cluster_gpus(run) > 0:
        if run.gpus > 0:  # No more either: what else is up was started for other jobs.
            return max(1, _gpu_slots(float(run.gpus), run.gpus_per_fit))
        return max(1, sum(_gpu_slots(n.get("GPU", 0.0), run.gpus_per_fit) for n in _alive()))
    cpus = cpus_of_fit(run, categories)
    return max(1, sum(int(node.get("CPU", 0.0) / cpus) for node in _alive()))


def _gpu_slots(gpus: float, share: float) -> int:
    return int(gpus) * _fits_in_one_gpu(share) if share < 1 else int(gpus / share)


def _fits_in_one_gpu(share: float) -> int:
    return max(1, int(1.0 / share + 1e-9))


def _alive() -> Sequence[dict[str, Any]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
