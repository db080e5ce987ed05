"""How long fits take that share one device: one alone, then several side by side.

Every fit is a process of its own, as it is in a campaign. The features are random: the time of a
step depends on their shape alone. A few epochs are timed; seconds at 300 + 300 are extrapolated.

Shapes: N pictures, C channels, H, W height and width of the feature map.
"""

from __future__ import annotations

import itertools
import queue
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import multiprocessing

from nfbmr.benchmark.fit_ways import PAPER_EPOCHS
from nfbmr.config import Config
from nfbmr.errors import WorkerError
from nfbmr.progress import Progress
from nfbmr.train.fit import FLOW, MAPPER, EpochLosses, fit_heads
from nfbmr.train.training_features import InMemory

_START_S = 300.0


@dataclass(frozen=True)
class FitsRequest:
    """What is fitted.

    Attributes:
        config: of heads and fit; its epochs are not looked at.
        shape: (C, H, W) of the features.
        pictures: of a category.
        epochs: of each stage, at least 3: the first warms up, and the last may have the device for
            itself, since others have ended.
        device: where all of them run.
    """

    config: Config
    shape: tuple[int, int, int]
    pictures: int
    epochs: int
    device: torch.device


@dataclass(frozen=True)
class FitsTogether:
    """What so many fits side by side took, mean over them.

    Attributes:
        fits: at the same time.
        flow_epoch_s: seconds of an epoch of the flow.
        mapper_epoch_s: the same of the mapper.
        peak_mib: of the device's memory, the most that PyTorch took for one; None on a CPU.
    """

    fits: int
    flow_epoch_s: float
    mapper_epoch_s: float
    peak_mib: float | None

    @property
    def category_s(self) -> float:
        """Extrapolated: seconds of 300 + 300 epochs of one of them, beside the others."""
        return PAPER_EPOCHS * (self.flow_epoch_s + self.mapper_epoch_s)

    @property
    def categories_per_hour(self) -> float:
        """Of all of them together."""
        return self.fits * 3600 / self.category_s

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "extrapolated_to_epochs": PAPER_EPOCHS,
            "category_s": self.category_s,
            "categories_per_hour": self.categories_per_hour,
        }


def measure_fits_together(
    request: FitsRequest, counts: Sequence[int], progress: Progress
) -> list[FitsTogether]:
    """Fit so many categories at the same time, for each of ``counts``.

    Raises:
        WorkerError: a fit ended without a result: out of memory, say.
    """
    results = []
    for count in counts:
        result = _together(request, count)
        progress.say(
            f"{count} fit(s) at a time: {result.flow_epoch_s:.2f} s per flow epoch, "
            f"{result.mapper_epoch_s:.2f} s per mapper epoch each"
        )
        results.append(result)
    return results


def _together(request: FitsRequest, count: int) -> FitsTogether:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_fit, args=(request, seed, barrier, results), daemon=True)
        for seed in range(count)
    ]
    for process in processes:
        process.start()
    measured: list[tuple[float, float, float]] = []
    while len(measured) < count:
        try:
            measured.append(results.get(timeout=1.0))
        except queue.Empty:
            ended = [process.exitcode for process in processes if process.exitcode]
            if ended:
                for process in processes:
                    process.terminate()
                raise WorkerError(
                    f"{len(ended)} of {count} fits side by side ended with exit code {ended[0]}, "
                    "see above: fewer of them fit on this device."
                ) from None
    for process in processes:
        process.join()
    flow_s, mapper_s, mib = zip(*measured, strict=True)
    return FitsTogether(
        count,
        statistics.fmean(flow_s),
        statistics.fmean(mapper_s),
        max(mib) if request.device.type == "cuda" else None,
    )


def _fit(
    request: FitsRequest, seed: int, barrier: Barrier, results: Queue[tuple[float, float, float]]
) -> None:
    """One process: all of them begin their epochs together."""
    if request.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // barrier.parties))
    torch.manual_seed(seed)
    y_NCHW = torch.randn(request.pictures, *request.shape).half()
    marks: dict[str, list[float]] = {FLOW: [], MAPPER: []}

    def note(epoch: EpochLosses) -> None:
        if len(marks[epoch.stage]) == 0:
            barrier.wait(_START_S)  # Starting a process takes longer for some than for others.
        marks[epoch.stage].append(time.monotonic())

    config = request.config
    fit_heads(
        InMemory(y_NCHW),
        replace(config.heads, precision=config.fit.precision),
        replace(config.fit, flow_epochs=request.epochs, mapper_epochs=request.epochs, min_steps=0),
        category=f"benchmark {seed}",
        device=request.device,
        report=note,
    )
    peak = 0.0
    if request.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(request.device) / 2**20
    results.put((_epoch_s(marks[FLOW]), _epoch_s(marks[MAPPER]), peak))


def _epoch_s(marks: Sequence[float]) -> float:
    """Mean seconds between the ends of epochs, the last one left out; 0 for no such stage."""
    between = [b - a for a, b in itertools.pairwise(marks)]
    return statistics.fmean(between[:-1] or between) if between else 0.0
