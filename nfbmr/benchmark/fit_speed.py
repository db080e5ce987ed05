"""Seconds of a fit: the loop that the paper describes, and ours, on one category, one machine.

The paper runs the backbone in every one of its 300 + 300 epochs. Here a few epochs of that loop
are timed (``straight_loop``), then the same epochs on cached features with the same settings, whose
losses and AUROC must be the same, then the fit that nfbmr does by default, all of it. The seconds
at 300 + 300 epochs are extrapolated from the seconds per epoch.

Shapes: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from nfbmr.benchmark.fit_ways import FitSpeed, Way
from nfbmr.benchmark.straight_loop import StraightLoop
from nfbmr.config import PRESETS, Config
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError
from nfbmr.fit_settings import FitSettings
from nfbmr.metrics import image_auroc
from nfbmr.model.backbone import create_backbone
from nfbmr.model.heads import Heads, Standardizer
from nfbmr.model.runner import BackboneRunner, best_device
from nfbmr.model.scoring import image_scores
from nfbmr.process_memory import keep_freed_memory
from nfbmr.progress import Progress
from nfbmr.train.aggregate import SIMPLEST
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.held_out_maps import anomaly_maps
from nfbmr.train.split import split_normals
from nfbmr.train.training_features import InCache


@dataclass(frozen=True)
class FitSpeedRequest:
    """What to measure.

    Attributes:
        data: labelled data root.
        layout: its layout, or ``auto``.
        category: which; None for the one with most pictures.
        config: of the detector; its ``fit`` is the default way.
        epochs: of each stage that are timed, at least 2: the first warms up.
        compile: time a compiled step as well.
        work_dir: a folder for features.
    """

    data: str
    layout: str
    category: str | None
    config: Config
    epochs: int
    compile: bool
    work_dir: Path


@dataclass
class _Bench:
    """Pictures, features and backbone that all ways share."""

    config: Config
    category: str
    uris: list[str]
    cache: FeatureCache
    entries: list[str]
    features_s: float
    test_NCHW: Tensor
    truth: list[bool]
    device: torch.device
    progress: Progress
    standardizer: Standardizer = field(init=False)

    def auroc(self, heads: Heads) -> float:
        maps_NHW = anomaly_maps(heads, self.test_NCHW, self.device)
        value = image_auroc(self.truth, image_scores(maps_NHW, SIMPLEST).numpy())
        assert value is not None  # Both kinds are there: checked where the bench is made.
        return value


def measure_fit_speed(request: FitSpeedRequest, progress: Progress) -> FitSpeed:
    """Time the ways one after the other in this process.

    Raises:
        DataError: there are no labelled test pictures of both kinds.
    """
    keep_freed_memory()
    bench = _bench(request, progress)
    paper = paper_fit(request.config.fit, request.epochs)
    bench.standardizer = _standardizer(bench)
    straight = _straight(bench, paper)
    same = _cached(bench, "cached features, the same settings", paper)
    precision = request.config.fit.precision
    precise = replace(paper, precision=precision)
    others = []
    if precision != paper.precision:
        others.append(_cached(bench, f"cached features, {precision}", precise))
    if request.compile:
        compiled = replace(precise, compile=True)
        others.append(_cached(bench, f"cached features, {precision}, compiled", compiled))
    fit = request.config.fit
    count = len(bench.entries)
    name = f"{fit.epochs('flow', count)} + {fit.epochs('mapper', count)} epochs, {fit.schedule}"
    default = _cached(bench, f"nfbmr's default: {name}", fit)
    return FitSpeed(bench.category, count, bench.features_s, straight, same, others, default)


def paper_fit(fit: FitSettings, epochs: int) -> FitSettings:
    """The paper's settings of a fit, for so many epochs of each stage, with the seed of ``fit``."""
    paper = {**PRESETS["paper"]["fit"], "flow_epochs": epochs, "mapper_epochs": epochs}
    return FitSettings(**paper, seed=fit.seed)


def _bench(request: FitSpeedRequest, progress: Progress) -> _Bench:
    config = request.config
    samples = discover(
        request.data, request.layout, [request.category] if request.category else None
    )
    category = _largest(samples)
    split = split_normals(samples, category, config.calibration, config.fit.seed)
    tests = [s for s in samples if s.category == category and s.split == "test"]
    truth = [sample.is_defective for sample in tests]
    if all(truth) or not any(truth):
        raise DataError(
            f"Category {category!r} has {len(truth)} test pictures, {sum(truth)} of them "
            "defective: equal accuracy can only be shown with normal and defective ones."
        )
    runner = BackboneRunner(config.backbone, batch_size=config.run.batch_size)
    cache = FeatureCache(str(request.work_dir / "features"), runner.backbone.key())
    uris = [sample.uri for sample in split.fit]
    started = time.monotonic()
    entries = _compute(runner, cache, uris, "train", progress)
    features_s = time.monotonic() - started
    test_entries = _compute(runner, cache, [sample.uri for sample in tests], "test", progress)
    return _Bench(
        config, category, uris, cache, entries, features_s, cache.load(test_entries), truth,
        best_device(), progress,
    )  # fmt: skip


def _largest(samples: Sequence[Sample]) -> str:
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample.category] = counts.get(sample.category, 0) + (sample.split == "train")
    return max(sorted(counts), key=lambda category: counts[category])


def _compute(
    runner: BackboneRunner, cache: FeatureCache, uris: Sequence[str], kind: str, progress: Progress
) -> list[str]:
    """Decode, run the backbone, write the cache: once for every picture, in this process."""
    settings = runner.backbone.settings
    entries = [f"{kind}-{i:06d}" for i in range(len(uris))]
    with progress.counter(f"features of {kind} pictures", len(uris)) as count:
        for start in range(0, len(uris), runner.batch_size):
            part = range(start, min(start + runner.batch_size, len(uris)))
            pixels = [
                decode_and_resize(
                    read_bytes(uris[i]), settings.image_size_px, settings.resampling
                ).pixels_HWC.tobytes()
                for i in part
            ]
            for i, y_CHW in zip(part, runner.features(pixels), strict=True):
                cache.write(entries[i], y_CHW)
            count(part.stop)
    return entries


def _standardizer(bench: _Bench) -> Standardizer:
    y_NCHW = bench.cache.load(bench.entries)
    standardizer = Standardizer(y_NCHW.shape[1])
    if bench.config.standardize:
        standardizer.fit(y_NCHW)
    return standardizer


def _straight(bench: _Bench, fit: FitSettings) -> Way:
    settings = replace(bench.config.backbone, precision="float32")
    backbone = create_backbone(settings).to(bench.device).eval()
    heads_settings = replace(bench.config.heads, precision="float32")
    with _Peak(bench.device) as peak:
        started = time.monotonic()
        loop = StraightLoop(bench.uris, backbone, heads_settings, fit, bench.standardizer)
        heads = loop.fit(bench.progress.say)
        seconds = time.monotonic() - started
    return Way(
        "backbone in every epoch, as the paper describes",
        fit.flow_epochs,
        fit.mapper_epochs,
        seconds,
        _typical(loop.epoch_s["flow"]),
        _typical(loop.epoch_s["mapper"]),
        bench.auroc(heads),
        loop.losses,
        peak.mib,
    )


def _cached(bench: _Bench, name: str, fit: FitSettings) -> Way:
    marks: dict[str, list[float]] = {"flow": [], "mapper": []}
    losses: list[float] = []

    def note(epoch: EpochLosses) -> None:
        marks[epoch.stage].append(time.monotonic())
        losses.append(sum(v for k, v in epoch.losses.items() if "validation" not in k))

    heads_settings = replace(bench.config.heads, precision=fit.precision)
    with _Peak(bench.device) as peak:
        started = time.monotonic()
        heads = fit_heads(
            InCache(bench.cache, bench.entries),
            heads_settings,
            fit,
            category=bench.category,
            device=bench.device,
            report=note,
        )
        seconds = time.monotonic() - started + bench.features_s
    bench.progress.say(f"{name}: {seconds:.1f} s, features included")
    epoch_s = {
        stage: [b - a for a, b in itertools.pairwise(times)] for stage, times in marks.items()
    }
    return Way(
        name,
        len(marks["flow"]),
        len(marks["mapper"]),
        seconds,
        _typical(epoch_s["flow"], first_included=False),
        _typical(epoch_s["mapper"], first_included=False),
        bench.auroc(heads),
        losses,
        peak.mib,
    )


def _typical(seconds: Sequence[float], *, first_included: bool = True) -> float:
    """The mean over epochs without the first; 0 for a stage that there is not."""
    kept = seconds[1:] if first_included else seconds
    return statistics.fmean(kept) if kept else 0.0


class _Peak:
    """The most memory that PyTorch took of a GPU within a block; None on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib: float | None = None

    def __enter__(self) -> _Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
