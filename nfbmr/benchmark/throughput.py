"""Images per second of the bare backbone, of a plain script, and of the scoring job.

Everything runs in one go, on the same pictures, weights, image size and batch size, and uses all
cores: the backbone and the script as threads of one process, the job as its actors and tasks. The
job is timed for every kind of archive and number of actors that is asked for, and held against
what its own stages cost by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nfbmr.benchmark.baselines import backbone_per_s, loop_per_s
from nfbmr.benchmark.numerics import NumericsResult, compare_numerics
from nfbmr.benchmark.packing import pack
from nfbmr.benchmark.peer import time_anomalib
from nfbmr.benchmark.scoring_job import JobRate, allowed_per_s, time_job
from nfbmr.benchmark.stages_alone import stages_alone
from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import FitError
from nfbmr.model.detector import Detector
from nfbmr.progress import Progress
from nfbmr.registry import Registry, embedded_uri
from nfbmr.storage import join
from nfbmr.train.campaign import CampaignPaths, run_campaign

DISK = "disk"


@dataclass(frozen=True)
class ThroughputRequest:
    """What to measure.

    Attributes:
        data: labelled data root; its pictures are scored, its normals fit a detector first.
        layout: its layout, or ``auto``.
        categories: which; None for all.
        config: of the detector and of the job.
        pictures: at most so many.
        work_dir: a folder for archives, models and scores.
        cores: that may be used.
        kinds: of archives (see ``packing``) from which the job reads.
        store: prefix of an object store from which it reads besides the disk.
        workers: numbers of actors to compare, on the first kind of archive.
        accuracy: fit in full, and compare the AUROC of fast and plain forward passes.
        peer: Python of an environment with anomalib.
    """

    data: str
    layout: str
    categories: Sequence[str] | None
    config: Config
    pictures: int
    work_dir: Path
    cores: int
    kinds: Sequence[str] = ("prefix",)
    store: str | None = None
    workers: Sequence[int] = ()
    accuracy: bool = False
    peer: str | None = None


@dataclass(frozen=True)
class Throughput:
    """Images per second.

    Attributes:
        pictures: scored by the job and the loop.
        backbone_per_s: (a) forward passes of the backbone alone, on pixels in memory.
        loop_per_s: (b) open, resize, forward, heads, in one process.
        stage_cpu_seconds: what the stages cost by themselves, in one thread.
        allowed_per_s: what these costs would allow if all cores did nothing else.
        jobs: (c) the scoring job, for every archive and number of actors; the first is compared
            with the rest.
        forward: what fast forward passes changed (see ``ForwardDifference``).
        numerics: AUROC of fast and plain forward passes, where it was asked for.
        peer: images/s of ``anomalib predict``, where it was asked for.
    """

    pictures: int
    backbone_per_s: float
    loop_per_s: float
    stage_cpu_seconds: dict[str, float]
    allowed_per_s: float
    jobs: list[JobRate]
    forward: dict[str, Any] | None
    numerics: list[NumericsResult] = field(default_factory=list)
    peer: dict[str, float] = field(default_factory=dict)

    @property
    def job_per_s(self) -> float:
        """Of the first job."""
        return self.jobs[0].per_s

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the ratios that the README states."""
        ratios = {
            "job_per_s": self.job_per_s,
            "job_over_backbone": self.job_per_s / self.backbone_per_s,
            "job_over_loop": self.job_per_s / self.loop_per_s,
            "job_over_allowed": self.job_per_s / self.allowed_per_s,
        }
        if self.peer:
            ratios["job_over_anomalib"] = self.job_per_s / self.peer["predict_per_s"]
        jobs = [
            {**asdict(job), "shares": job.shares(), "busy": job.busy, "says": job.bottleneck()}
            for job in self.jobs
        ]
        return {**asdict(self), **ratios, "jobs": jobs}


def measure_throughput(request: ThroughputRequest, progress: Progress) -> Throughput:
    """Fit a detector, then measure. Needs a Ray session.

    Raises:
        DataError: there are too few pictures.
        FitError: the detector could not be fitted.
        ConfigError: the environment with anomalib is missing.
    """
    config = request.config
    samples = discover(request.data, request.layout, request.categories)
    chosen = _spread(samples, request.pictures)
    registry = Registry(embedded_uri(str(request.work_dir)))
    detectors = _detectors(request, registry, progress)
    # The loop comes first: it is to have the memory allocator as a plain script finds it.
    loop_rate = loop_per_s(config, chosen, detectors, progress)
    progress.say(f"(b) {loop_rate:.1f} images/s")
    peer = {}
    if request.peer is not None:
        with progress.busy("anomalib is being timed"):
            peer = time_anomalib(request.peer, config, chosen, request.work_dir / "peer")
        progress.say(f"anomalib predict: {peer['predict_per_s']:.1f} images/s")
    backbone_rate = backbone_per_s(config, chosen)
    progress.say(f"(a) bare backbone: {backbone_rate:.1f} images/s")
    sources = _sources(request, chosen, progress)
    costs, jobs, forward = _jobs(request, sources, registry, progress)
    numerics = []
    if request.accuracy:
        numerics = compare_numerics(detectors, samples, config, request.cores, progress)
    return Throughput(
        pictures=len(chosen),
        backbone_per_s=backbone_rate,
        loop_per_s=loop_rate,
        stage_cpu_seconds=costs,
        allowed_per_s=allowed_per_s(costs, len(chosen), request.cores),
        jobs=jobs,
        forward=forward,
        numerics=numerics,
        peer=peer,
    )


def _sources(
    request: ThroughputRequest, chosen: Sequence[Sample], progress: Progress
) -> dict[str, str]:
    """Archives by what they are called in the table."""
    roots = {DISK: str(request.work_dir / "archives")}
    if request.store:
        roots[request.store.partition("://")[0]] = join(request.store, "archives")
    sources = {}
    for place, root in roots.items():
        for kind in request.kinds:
            sources[f"{kind}, {place}"] = pack(chosen, kind, root)
    progress.say(f"{len(chosen)} pictures lie in {', '.join(sources)}")
    return sources


def _jobs(
    request: ThroughputRequest, sources: dict[str, str], registry: Registry, progress: Progress
) -> tuple[dict[str, float], list[JobRate], dict[str, Any] | None]:
    """What the stages cost on the first source, the rate of every job, and the first's numerics."""
    run, weights = request.config.run, request.config.backbone.weights
    outputs = request.work_dir / "scores"
    first = next(iter(sources))
    alone = stages_alone(sources[first], str(outputs / "alone"), registry, run, progress, weights)
    wanted = [(name, run) for name in sources]
    wanted += [(first, replace(run, actors_max=n, actors_min=n)) for n in request.workers]
    jobs, forward = [], None
    for number, (name, settings) in enumerate(wanted):
        output = str(outputs / str(number))
        rate, summary = time_job(sources[name], name, output, registry, settings, weights)
        progress.say(f"(c) {name}, {rate.actors} actors: {rate.per_s:.1f} images/s")
        jobs.append(rate)
        forward = forward or summary.forward
    return alone.cpu_seconds, jobs, forward


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most ``count`` samples, evenly over all categories and splits."""
    step = max(1.0, len(samples) / count)
    return [samples[int(i * step)] for i in range(min(count, len(samples)))]


def _detectors(
    request: ThroughputRequest, registry: Registry, progress: Progress
) -> dict[str, Detector]:
    """Detectors of the right shape: one epoch each, since speed does not depend on the fit."""
    config = replace(
        request.config, calibration=replace(request.config.calibration, aggregate="mean")
    )
    if not request.accuracy:
        fit = replace(config.fit, flow_epochs=1, mapper_epochs=1, min_steps=1)
        config = replace(config, fit=fit)
    results = run_campaign(
        request.data,
        request.layout,
        request.categories,
        config,
        CampaignPaths.under(str(request.work_dir)),
        registry,
        progress,
    )
    if results.error is not None:
        raise results.error
    failed = [f"{r.category}: {r.decision}" for r in results if r.outcome == "failed"]
    if failed:
        raise FitError("; ".join(failed))
    return {r.category: registry.load(r.category, r.version or "") for r in results}
