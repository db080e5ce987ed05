"""Training all categories of a data root: features, fits, registry, promotion, one table."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nfbmr import storage
from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, NfbmrError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.settings import AUTOMATIC
from nfbmr.train.category_fit import CategoryTask
from nfbmr.train.features import FeatureIndex, Picture, compute_features
from nfbmr.train.fit import EpochLosses
from nfbmr.train.ray_fit import Failed, Fitted, fit_categories
from nfbmr.train.registration import last_losses, register
from nfbmr.train.split import Split, split_normals

SYNTHETIC_DEFECTS = 1
"""Synthetic defects per held-out picture, for the choice of the aggregate."""


@dataclass
class CategoryResult:
    """One row of the table that ends a campaign.

    Attributes:
        category: the product type.
        outcome: ``registered`` or ``failed``.
        version: of the registered model, or None.
        pictures: normal pictures that were fitted on.
        held_out: normal pictures that calibrate.
        unreadable: training pictures that were left out because they cannot be read.
        aggregate: how maps become image scores.
        synthetic_auroc: of that aggregate on synthetic defects, where measured.
        flow_loss: of the last epoch.
        mapper_loss: source plus target, of the last epoch.
        seconds: of the fit.
        decision: the gate's sentence, or the error.
    """

    category: str
    outcome: str
    version: str | None = None
    pictures: int = 0
    held_out: int = 0
    unreadable: int = 0
    aggregate: str | None = None
    synthetic_auroc: float | None = None
    flow_loss: float | None = None
    mapper_loss: float | None = None
    seconds: float = 0.0
    decision: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CampaignPaths:
    """Where a campaign keeps things; folders or ``s3://`` prefixes.

    Attributes:
        features: the feature cache.
        checkpoints: Ray Train's storage.
    """

    features: str
    checkpoints: str

    @classmethod
    def under(cls, work_dir: str) -> CampaignPaths:
        """The usual places in a work directory."""
        root = storage.absolute_uri(work_dir)
        return cls(storage.join(root, "features"), storage.join(root, "checkpoints"))


def run_campaign(
    data: str,
    layout: str,
    categories: Sequence[str] | None,
    config: Config,
    paths: CampaignPaths,
    registry: Registry,
    progress: Progress,
) -> list[CategoryResult]:
    """Fit and register one detector per category. Needs a Ray session.

    Args:
        data: data root, a path or ``s3://`` URI.
        layout: name of the layout, or ``auto``.
        categories: which; None for all.
        config: all settings.
        paths: where intermediate results are kept.
        registry: where detectors are registered.
        progress: where it says what it does.

    Returns:
        A row per category, in the order of their names; failed ones too.

    Raises:
        NfbmrError: nothing could be done at all (no data, wrong settings, no registry).
    """
    progress.say(f"Looking for pictures in {data}")
    samples = discover(data, layout, categories)
    names = sorted({sample.category for sample in samples})
    registry.prepare()
    splits, results = _splits(samples, names, config)
    if splits:
        index = _features(splits, config, paths, progress)
        tasks, failures = _tasks(splits, index, config, paths)
        results += failures
        results += _fit_all(tasks, index, splits, config, paths, registry, progress)
    return sorted(results, key=lambda result: result.category)


def _splits(
    samples: Sequence[Sample], names: Sequence[str], config: Config
) -> tuple[dict[str, Split], list[CategoryResult]]:
    """Split every category; those that cannot be are results already."""
    splits: dict[str, Split] = {}
    failures: list[CategoryResult] = []
    for name in names:
        try:
            splits[name] = split_normals(samples, name, config.calibration, config.fit.seed)
        except DataError as error:
            failures.append(CategoryResult(name, "failed", decision=str(error)))
    return splits, failures


def _pictures(split: Split, config: Config) -> list[Picture]:
    pictures = [Picture(sample.uri) for sample in split.pictures]
    return pictures + _synthetic(split, config)


def _synthetic(split: Split, config: Config) -> list[Picture]:
    if config.calibration.aggregate != AUTOMATIC:
        return []
    variants = range(1, SYNTHETIC_DEFECTS + 1)
    return [Picture(sample.uri, variant) for sample in split.held_out for variant in variants]


def _features(
    splits: Mapping[str, Split], config: Config, paths: CampaignPaths, progress: Progress
) -> FeatureIndex:
    pictures = [p for split in splits.values() for p in _pictures(split, config)]
    with progress.counter("features", len(pictures)) as count:
        index = compute_features(
            pictures, config.backbone, paths.features, config.run, lambda done, _: count(done)
        )
    reused = len(index.entries) - index.computed
    progress.say(
        f"Features of {len(index.entries)} pictures ({index.computed} computed, {reused} from the "
        f"cache, {len(index.errors)} unreadable)"
    )
    for picture, error in list(index.errors.items())[:10]:
        progress.say(f"  skipped {picture.uri}: {error}")
    return index


def _tasks(
    splits: Mapping[str, Split], index: FeatureIndex, config: Config, paths: CampaignPaths
) -> tuple[list[CategoryTask], list[CategoryResult]]:
    tasks: list[CategoryTask] = []
    failures: list[CategoryResult] = []
    for name, split in splits.items():
        unreadable = _unreadable(split, index)
        total = len(split.pictures)
        if len(unreadable) > config.run.training_failure_budget * total:
            failures.append(
                CategoryResult(
                    name,
                    "failed",
                    unreadable=len(unreadable),
                    decision=f"{len(unreadable)} of {total} training pictures of {name!r} cannot "
                    f"be read, more than run.training_failure_budget = "
                    f"{config.run.training_failure_budget:g} allows; first: {unreadable[0]}",
                )
            )
            continue
        tasks.append(_task(name, split, index, config, paths))
    return tasks, failures


def _unreadable(split: Split, index: FeatureIndex) -> list[str]:
    pictures = [Picture(sample.uri) for sample in split.pictures]
    return [f"{p.uri} ({index.errors[p]})" for p in pictures if p in index.errors]


def _task(
    name: str, split: Split, index: FeatureIndex, config: Config, paths: CampaignPaths
) -> CategoryTask:
    def entries(pictures: Sequence[Picture]) -> list[str]:
        return [index.entries[p] for p in pictures if p in index.entries]

    fit_entries = entries([Picture(sample.uri) for sample in split.fit])
    held_out_entries = entries([Picture(sample.uri) for sample in split.held_out])
    fingerprint = hashlib.sha256("".join(sorted(fit_entries + held_out_entries)).encode())
    return CategoryTask(
        category=name,
        config=config,
        cache_root=paths.features,
        backbone_key=index.backbone_key,
        backbone=index.backbone,
        fit_entries=fit_entries,
        held_out_entries=held_out_entries,
        synthetic_entries=entries(_synthetic(split, config)),
        folds=split.folds,
        lineage={
            "data_fingerprint": fingerprint.hexdigest(),
            "pictures_fitted": len(fit_entries),
            "pictures_held_out": len(held_out_entries),
            "pictures_unreadable": len(_unreadable(split, index)),
            "fitted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def _fit_all(
    tasks: Sequence[CategoryTask],
    index: FeatureIndex,
    splits: Mapping[str, Split],
    config: Config,
    paths: CampaignPaths,
    registry: Registry,
    progress: Progress,
) -> list[CategoryResult]:
    by_name = {task.category: task for task in tasks}
    results = []
    say_epoch = _epoch_lines(progress)
    for outcome in fit_categories(tasks, config.run, paths.checkpoints, say_epoch):
        task = by_name[outcome.category]
        unreadable = _unreadable(splits[outcome.category], index)
        result = _finish(outcome, task, len(unreadable), registry)
        progress.say(f"{result.category}: {result.outcome}; {result.decision}")
        results.append(result)
    return results


def _epoch_lines(progress: Progress) -> Callable[[str, EpochLosses], None]:
    """A line about every fifth of a stage, so that a log stays readable."""

    def say(category: str, epoch: EpochLosses) -> None:
        every = max(1, epoch.epochs // 5)
        if epoch.epoch % every == 0 or epoch.epoch == epoch.epochs:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
            progress.say(f"{category}: {epoch.stage} epoch {epoch.epoch}/{epoch.epochs}, {losses}")

    return say


def _finish(
    outcome: Fitted | Failed, task: CategoryTask, unreadable: int, registry: Registry
) -> CategoryResult:
    """Register and judge what was fitted."""
    result = CategoryResult(
        outcome.category,
        "failed",
        pictures=len(task.fit_entries),
        held_out=len(task.held_out_entries),
        unreadable=unreadable,
    )
    if isinstance(outcome, Failed):
        result.decision = outcome.error
        return result
    report = outcome.report
    try:
        version, decision = register(outcome, task, registry)
    except NfbmrError as error:
        result.decision = str(error)
        return result
    last = last_losses(report)
    result.outcome = "registered"
    result.version = version.version
    result.aggregate = report.aggregate
    result.synthetic_auroc = report.synthetic_aurocs.get(report.aggregate)
    result.flow_loss = last.get("flow_loss")
    result.mapper_loss = last.get("mapper_loss")
    result.seconds = report.seconds
    verdict = "champion" if decision.promote else "challenger"
    result.decision = f"version {version.version} is {verdict}: {decision.reason}"
    return result
