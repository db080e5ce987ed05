"""Image AUROC of every anomaly map under every aggregate, on labelled data, over several seeds.

The default detector is fitted, calibrated and registered exactly as ``jobs/train.py`` does it; it
is then loaded from the registry and run over the test pictures. Test labels are looked at only
here, after the last epoch. All maps (flow only, the two halves of eq. 14, eq. 14) come from that
one fit.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, FitError
from nfbmr.metrics import Rate, image_auroc, rate
from nfbmr.model.detector import Detector
from nfbmr.model.scoring import AGGREGATES, image_scores
from nfbmr.progress import Progress
from nfbmr.registry import Registry, embedded_uri
from nfbmr.train.campaign import CampaignPaths, CategoryResult, run_campaign
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.features import compute_features

_CHUNK = 64
ALLOWED_LOST_POINTS = 1.0


@dataclass(frozen=True)
class AccuracyRequest:
    """What to measure.

    Attributes:
        data: labelled data root.
        layout: its layout, or ``auto``.
        categories: which; None for all.
        config: of the detector.
        seeds: one fit of every category for each.
        work_dir: a folder for features, checkpoints and registries.
    """

    data: str
    layout: str
    categories: Sequence[str] | None
    config: Config
    seeds: Sequence[int]
    work_dir: Path


@dataclass(frozen=True)
class CategoryAccuracy:
    """One category's detector of one seed on the test pictures.

    Attributes:
        category: the product type.
        seed: of the fit.
        pictures: test pictures.
        unreadable: test pictures left out, because they cannot be read.
        image_auroc: of the detector as registered.
        aggregate: that it chose without labels.
        synthetic_aurocs: what it chose by: AUROC of every aggregate between held-out normals and
            synthetic defects.
        false_alarms: normal test pictures above its calibrated threshold.
        requested_rate: of false alarms.
        scoring_map: the map that scores pictures.
        variants: AUROC by map and aggregate.
        fit_s: seconds of the fit.
    """

    category: str
    seed: int
    pictures: int
    unreadable: int
    image_auroc: float
    aggregate: str
    synthetic_aurocs: dict[str, float]
    false_alarms: Rate | None
    requested_rate: float
    scoring_map: str
    variants: dict[str, dict[str, float]]
    fit_s: float

    @property
    def best_aggregate(self) -> str:
        """What would have been chosen by somebody who looks at the test labels."""
        row = self.variants[self.scoring_map]
        return max(row, key=lambda aggregate: row[aggregate])

    @property
    def lost_points(self) -> float:
        """AUROC points (percent) that the choice without labels is below the best aggregate."""
        row = self.variants[self.scoring_map]
        return 100 * (row[self.best_aggregate] - row[self.aggregate])

    @property
    def false_alarms_as_requested(self) -> bool:
        """Whether the requested rate lies in the 95 % interval of the observed false alarms."""
        seen = self.false_alarms
        return seen is not None and seen.low <= self.requested_rate <= seen.high

    def verdicts(self) -> tuple[str, str]:
        """Two sentences: about the aggregate, and about the false alarms."""
        evidence = ", ".join(f"{a} {auroc:.3f}" for a, auroc in self.synthetic_aurocs.items())
        aggregate = (
            f"{self.category}, seed {self.seed}: aggregate {self.aggregate!r}, chosen without "
            f"labels, is {self.lost_points:.2f} AUROC points below the best, "
            f"{self.best_aggregate!r} (allowed: {ALLOWED_LOST_POINTS:g}): "
            f"{_yes(self.lost_points <= ALLOWED_LOST_POINTS)}\n  (AUROC against synthetic defects, "
            f"by which it was chosen: {evidence or 'none: it was set'})"
        )
        seen = self.false_alarms
        if seen is None:
            return aggregate, f"{self.category}, seed {self.seed}: no normal test picture: no"
        return aggregate, (
            f"{self.category}, seed {self.seed}: {seen.count} false alarms on {seen.n} normal test "
            f"pictures; binomial 95 % interval {seen.low:.1%} to {seen.high:.1%}, requested "
            f"{self.requested_rate:.1%}: {_yes(self.false_alarms_as_requested)}"
        )


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with the sample standard deviation (None for one seed)."""

    mean: float
    spread: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The mean and spread of at least one value."""
        spread = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), spread, tuple(values))

    def __str__(self) -> str:
        """As it stands in the table."""
        return f"{self.mean:.4f}" + ("" if self.spread is None else f" ± {self.spread:.4f}")


def measure_accuracy(request: AccuracyRequest, progress: Progress) -> list[CategoryAccuracy]:
    """Fit and test every category for every seed. Needs a Ray session.

    Raises:
        DataError: there are no labelled test pictures of both kinds.
        FitError: a category could not be fitted.
    """
    samples = discover(request.data, request.layout, request.categories)
    tests = labelled_tests(samples)
    results = []
    for seed in request.seeds:
        progress.say(f"Seed {seed}")
        config = replace(request.config, fit=replace(request.config.fit, seed=seed))
        registry = Registry(embedded_uri(str(request.work_dir / f"seed-{seed}")))
        paths = CampaignPaths.under(str(request.work_dir))
        fitted = run_campaign(
            request.data, request.layout, request.categories, config, paths, registry, progress
        )
        if fitted.error is not None:
            raise fitted.error
        index = _test_features(tests, config, paths, progress)
        for result in fitted:
            if result.outcome == "failed":
                raise FitError(f"Category {result.category!r}: {result.decision}")
            # By its version: which one is champion was decided with labels.
            detector = registry.load(result.category, result.version or "")
            own = tests[result.category]
            results.append(_test(detector, result, own, index, paths.features, seed))
    return results


def labelled_tests(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Test pictures by category.

    Raises:
        DataError: a category's are all normal or all defective.
    """
    tests: dict[str, list[Sample]] = {}
    for sample in samples:
        own = tests.setdefault(sample.category, [])
        if sample.split == "test":
            own.append(sample)
    for category, own in tests.items():
        defective = sum(sample.is_defective for sample in own)
        if defective in (0, len(own)):
            raise DataError(
                f"Category {category!r} has {len(own)} test pictures, {defective} of them "
                "defective: an AUROC needs normal and defective ones. Leave it out with "
                "--categories."
            )
    return tests


def _test_features(
    tests: Mapping[str, Sequence[Sample]], config: Config, paths: CampaignPaths, progress: Progress
) -> FeatureIndex:
    pictures = [Picture(sample.uri) for own in tests.values() for sample in own]
    with progress.counter("features of test pictures", len(pictures)) as count:
        return compute_features(
            pictures, config.backbone, paths.features, config.run, lambda done, _: count(done)
        )


def _test(
    detector: Detector,
    result: CategoryResult,
    samples: Sequence[Sample],
    index: FeatureIndex,
    cache_root: str,
    seed: int,
) -> CategoryAccuracy:
    readable = [sample for sample in samples if Picture(sample.uri) in index.entries]
    truth_N = np.array([sample.is_defective for sample in readable])
    entries = [index.entries[Picture(sample.uri)] for sample in readable]
    maps = _all_maps(detector, FeatureCache(cache_root, index.backbone_key), entries)
    score_N = image_scores(maps[detector.heads.default_map], detector.aggregate).numpy()
    alarms_N = score_N[~truth_N] > detector.threshold
    return CategoryAccuracy(
        category=result.category,
        seed=seed,
        pictures=len(readable),
        unreadable=len(samples) - len(readable),
        image_auroc=image_auroc_of(truth_N, score_N),
        aggregate=detector.aggregate,
        synthetic_aurocs=detector.lineage["synthetic_aurocs"],
        false_alarms=rate(int(alarms_N.sum()), alarms_N.size),
        requested_rate=detector.false_alarm_rate,
        scoring_map=detector.heads.default_map,
        variants={
            name: {
                aggregate: image_auroc_of(truth_N, image_scores(map_NHW, aggregate).numpy())
                for aggregate in AGGREGATES
            }
            for name, map_NHW in maps.items()
        },
        fit_s=result.seconds,
    )


@torch.inference_mode()
def _all_maps(
    detector: Detector, cache: FeatureCache, entries: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Every map (N, H, W) of the test pictures."""
    chunks: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(entries), _CHUNK):
        y_BCHW = cache.load(list(entries[start : start + _CHUNK])).float()
        for name, map_BHW in detector.heads.all_maps(y_BCHW).items():
            chunks.setdefault(name, []).append(map_BHW)
    return {name: torch.cat(parts) for name, parts in chunks.items()}


def image_auroc_of(truth_N: NDArray[np.bool_], score_N: NDArray[np.floating]) -> float:
    """Image AUROC of pictures (N,).

    Raises:
        DataError: all of them are of one kind.
    """
    value = image_auroc(truth_N, score_N)
    if value is None:
        raise DataError("All readable test pictures of a category are of one kind: no AUROC.")
    return value


def mean_over_categories(
    results: Sequence[CategoryAccuracy], value: Callable[[CategoryAccuracy], float]
) -> Spread:
    """A number's mean over categories for each seed, then over seeds."""
    by_seed: dict[int, list[float]] = {}
    for result in results:
        by_seed.setdefault(result.seed, []).append(value(result))
    return Spread.of([statistics.fmean(values) for values in by_seed.values()])


def variants(results: Sequence[CategoryAccuracy]) -> dict[str, dict[str, Spread]]:
    """AUROC by map and aggregate, averaged over categories, spread over seeds."""
    return {
        name: {
            aggregate: mean_over_categories(results, _variant(name, aggregate))
            for aggregate in columns
        }
        for name, columns in results[0].variants.items()
    }


def _variant(name: str, aggregate: str) -> Callable[[CategoryAccuracy], float]:
    return lambda result: result.variants[name][aggregate]
