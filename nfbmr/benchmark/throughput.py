"""Images per second of the bare backbone, of a plain script, and of the scoring job.

All three run in one go, on the same pictures, weights, image size and batch size, and use all
cores: the backbone and the script as threads of one process, the job as its actors and tasks.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nfbmr.config import Config
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, FitError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.detector import Detector
from nfbmr.model.runner import BackboneRunner
from nfbmr.process_memory import keep_freed_memory
from nfbmr.progress import Progress
from nfbmr.registry import Registry, default_uri
from nfbmr.score.pictures import planned_samples
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.summary import ScoringSummary
from nfbmr.train.campaign import CampaignPaths, run_campaign

_IN_MEMORY = 256


@dataclass(frozen=True)
class ThroughputRequest:
    """What to measure.

    Attributes:
        data: labelled data root; its pictures are scored, its normals fit a detector first.
        layout: its layout, or ``auto``.
        categories: which; None for all.
        config: of the detector and of the job.
        pictures: at most so many.
        work_dir: a folder for models and scores.
    """

    data: str
    layout: str
    categories: Sequence[str] | None
    config: Config
    pictures: int
    work_dir: Path


@dataclass(frozen=True)
class Throughput:
    """Images per second.

    Attributes:
        pictures: scored by the job and the loop.
        backbone_per_s: (a) forward passes of the backbone alone, on pixels in memory.
        loop_per_s: (b) open, resize, forward, heads, in one process.
        job_per_s: (c) the scoring job from the first finished unit to the last.
        job_with_start_per_s: (c) with planning, start of the actors and commit.
        seconds_by_stage: the job's worker seconds by stage.
    """

    pictures: int
    backbone_per_s: float
    loop_per_s: float
    job_per_s: float
    job_with_start_per_s: float
    seconds_by_stage: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the ratios c/a and c/b."""
        return {
            **asdict(self),
            "job_over_backbone": self.job_per_s / self.backbone_per_s,
            "job_over_loop": self.job_per_s / self.loop_per_s,
        }


class _Clock(Progress):
    """Notes when the scoring job's units come in."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, int]] = []

    @contextmanager
    def counter(
        self, what: str, total: int, drawn: bool = False
    ) -> Iterator[Callable[[int], None]]:
        with super().counter(what, total, drawn) as count:

            def note(done: int) -> None:
                self.marks.append((time.monotonic(), done))
                count(done)

            yield note

    def rate(self) -> float:
        """Images per second after the first mark."""
        (started, at_start), (ended, at_end) = self.marks[0], self.marks[-1]
        if ended <= started:
            raise DataError(
                "Too few pictures to measure: the job finished with its first unit. Ask for more "
                "--pictures, or make run.unit_size smaller."
            )
        return (at_end - at_start) / (ended - started)


def measure_throughput(request: ThroughputRequest, progress: Progress) -> Throughput:
    """Fit a detector quickly, then measure the three ways. Needs a Ray session.

    Raises:
        DataError: there are too few pictures.
        FitError: the detector could not be fitted.
    """
    samples = discover(request.data, request.layout, request.categories)
    chosen = [replace(s, split="test") for s in _spread(samples, request.pictures)]
    registry = Registry(default_uri(str(request.work_dir)))
    detectors = _detectors(request, registry, progress)
    # The loop comes first: it is to have the memory allocator as a plain script finds it.
    loop_per_s = _loop(request.config, chosen, detectors, progress)
    progress.say(f"(b) {loop_per_s:.1f} images/s")
    backbone_per_s = _backbone(request.config, chosen)
    progress.say(f"(a) bare backbone: {backbone_per_s:.1f} images/s")
    clock = _Clock()
    started = time.monotonic()
    summary = _job(request, chosen, registry, clock)
    return Throughput(
        pictures=len(chosen),
        backbone_per_s=backbone_per_s,
        loop_per_s=loop_per_s,
        job_per_s=clock.rate(),
        job_with_start_per_s=len(chosen) / (time.monotonic() - started),
        seconds_by_stage=summary.seconds_by_stage,
    )


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most ``count`` samples, evenly over all categories and splits."""
    step = max(1.0, len(samples) / count)
    return [samples[int(i * step)] for i in range(min(count, len(samples)))]


def _detectors(
    request: ThroughputRequest, registry: Registry, progress: Progress
) -> dict[str, Detector]:
    """Detectors of the right shape: one epoch each, since speed does not depend on the fit."""
    config = request.config
    fit = replace(config.fit, flow_epochs=1, mapper_epochs=1, min_steps=1)
    config = replace(config, fit=fit, calibration=replace(config.calibration, aggregate="mean"))
    results = run_campaign(
        request.data,
        request.layout,
        request.categories,
        config,
        CampaignPaths.under(str(request.work_dir)),
        registry,
        progress,
    )
    failed = [f"{r.category}: {r.decision}" for r in results if r.outcome == "failed"]
    if failed:
        raise FitError("; ".join(failed))
    return {r.category: registry.load(r.category, r.version or "") for r in results}


def _backbone(config: Config, samples: Sequence[Sample]) -> float:
    """(a): forward passes as the job's actors make them, on decoded pictures in memory."""
    keep_freed_memory()
    size, resampling = config.backbone.image_size_px, config.backbone.resampling
    pixels = [
        decode_and_resize(read_bytes(sample.uri), size, resampling).pixels_HWC.tobytes()
        for sample in samples[:_IN_MEMORY]
    ]
    batch_size = config.run.batch_size
    runner = BackboneRunner(config.backbone, batch_size=batch_size, threads=os.cpu_count())
    runner.features(pixels[:batch_size])
    done = 0
    started = time.perf_counter()
    while done < len(samples):
        chunk = pixels[: min(len(pixels), len(samples) - done)]
        runner.features(chunk)
        done += len(chunk)
    _synchronize(runner.device)
    return done / (time.perf_counter() - started)


@torch.inference_mode()
def _loop(
    config: Config, samples: Sequence[Sample], detectors: dict[str, Detector], progress: Progress
) -> float:
    """(b): what a script does without nfbmr's pipeline; written plainly on purpose."""
    torch.set_num_threads(os.cpu_count() or 1)
    backbone = create_backbone(config.backbone)
    size, batch_size = config.backbone.image_size_px, config.run.batch_size
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    done = 0
    started = time.perf_counter()
    with progress.counter("(b) plain loop", len(samples)) as count:
        for category, own in by_category.items():
            for start in range(0, len(own), batch_size):
                batch = []
                for sample in own[start : start + batch_size]:
                    image = Image.open(io.BytesIO(read_bytes(sample.uri))).convert("RGB")
                    batch.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
                y_BCHW = backbone(torch.from_numpy(np.stack(batch)))
                detectors[category].score_features(y_BCHW)
                done += len(batch)
                count(done)
    return done / (time.perf_counter() - started)


def _job(
    request: ThroughputRequest, samples: Sequence[Sample], registry: Registry, clock: _Clock
) -> ScoringSummary:
    """(c): plan, fetch, decode, score, commit."""
    return score(
        ScoringRequest((request.data,), str(request.work_dir / "scores")),
        registry,
        request.config.run,
        clock,
        pictures=lambda: planned_samples(samples, request.data),
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
