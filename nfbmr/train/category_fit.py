"""One category, from cached features to a saved detector. Knows nothing of Ray or MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.config import Config
from nfbmr.errors import FeaturesError
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.heads import Heads
from nfbmr.model.scoring import image_scores
from nfbmr.settings import AUTOMATIC
from nfbmr.train.aggregate import SIMPLEST, choose_aggregate, synthetic_aurocs
from nfbmr.train.data_parallel import Workers
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, Report, fit_heads
from nfbmr.train.held_out_maps import HeldOutMaps, cross_fitted_maps, held_out_maps
from nfbmr.train.training_features import InCache

REPORT_FILE = "fit.json"


@dataclass(frozen=True)
class CategoryTask:
    """Everything a worker needs to fit one category.

    Attributes:
        category: the product type.
        config: all settings.
        cache_root: where the features are.
        backbone_key: which backbone's.
        backbone: that backbone's identity.
        fit_entries: cache entries of the pictures to fit on.
        held_out_entries: of the normal pictures to calibrate with; the same as ``fit_entries``
            where they are cross-fitted.
        synthetic_entries: of held-out pictures with synthetic defects; none where the aggregate
            is given.
        folds: how many times heads are fitted to calibrate by cross-fitting; 0 where the pictures
            that calibrate are held out.
        lineage: goes into the detector.
    """

    category: str
    config: Config
    cache_root: str
    backbone_key: str
    backbone: dict[str, Any]
    fit_entries: Sequence[str]
    held_out_entries: Sequence[str]
    synthetic_entries: Sequence[str]
    folds: int = 0
    lineage: dict[str, Any] = field(default_factory=dict)


@dataclass
class FitReport:
    """What a fit tells besides the detector.

    Attributes:
        losses: per epoch, as the fit reported them.
        aggregate: which aggregate was taken.
        synthetic_aurocs: per aggregate, where they were measured.
        threshold: the score above which a picture is anomalous.
        p_value_floor: the smallest p-value the calibration can give.
        seconds: the fit's wall time on its worker.
    """

    losses: list[EpochLosses]
    aggregate: str
    synthetic_aurocs: dict[str, float]
    threshold: float
    p_value_floor: float
    seconds: float

    def save(self, folder: Path) -> None:
        """Write ``fit.json`` beside the detector."""
        (folder / REPORT_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FitReport:
        """Read what ``save`` wrote."""
        values = json.loads((folder / REPORT_FILE).read_text())
        losses = [EpochLosses(**row) for row in values.pop("losses")]
        return cls(losses=losses, **values)


def fit_category(
    task: CategoryTask,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    report: Report = lambda _: None,
) -> FitReport:
    """Fit, choose the aggregate, calibrate, and save the detector with its report.

    Args:
        task: what to fit.
        folder: where ``detector.safetensors``, ``detector.json`` and ``fit.json`` are written.
        device: where it is fitted.
        report: called after every epoch.

    Raises:
        FitError: the fit diverged, or features that were computed are not in the cache.
    """
    started = time.monotonic()
    losses: list[EpochLosses] = []

    def note(epoch: EpochLosses) -> None:
        losses.append(epoch)
        report(epoch)

    heads = _fit(task, task.fit_entries, device, note)
    maps = _calibration_maps(task, heads, device)
    aggregate, aurocs = _aggregate(task, maps)
    scores = image_scores(maps.normal_NHW, aggregate)
    detector = Detector(
        category=task.category,
        backbone=task.backbone,
        weights=task.config.backbone.weights,
        heads=heads,
        aggregate=aggregate,
        calibration=Calibration.from_scores(scores.tolist()),
        false_alarm_rate=task.config.calibration.false_alarm_rate,
        lineage={
            **task.lineage,
            "calibration_folds": task.folds,
            "synthetic_aurocs": aurocs,
            "settings": task.config.as_dict(),
        },
    )
    detector.save(folder)
    result = FitReport(
        losses=losses,
        aggregate=aggregate,
        synthetic_aurocs=aurocs,
        threshold=detector.threshold,
        p_value_floor=detector.calibration.p_value_floor,
        seconds=time.monotonic() - started,
    )
    result.save(folder)
    return result


def _fit(
    task: CategoryTask,
    entries: Sequence[str],
    device: str | torch.device,
    report: Report = lambda _: None,
    workers: Workers | None = None,
) -> Heads:
    cache = FeatureCache(task.cache_root, task.backbone_key)
    try:
        return fit_heads(
            InCache(cache, entries),
            task.config.heads,
            task.config.fit,
            category=task.category,
            device=device,
            report=report,
            workers=workers,
        )
    except FeaturesError as error:
        raise FeaturesError(f"Category {task.category!r}: {error}") from error


def _load(task: CategoryTask, entries: Sequence[str]) -> Tensor:
    try:
        return FeatureCache(task.cache_root, task.backbone_key).load(list(entries))
    except FeaturesError as error:
        raise FeaturesError(f"Category {task.category!r}: {error}") from error


def _calibration_maps(task: CategoryTask, heads: Heads, device: str | torch.device) -> HeldOutMaps:
    """Maps of the pictures that calibrate, by heads that were not fitted on them."""

    def load(entries: Sequence[str]) -> Tensor:
        return _load(task, entries)

    def fit(entries: Sequence[str]) -> Heads:
        return _fit(task, entries, device, workers=Workers())

    if task.folds == 0:
        return held_out_maps(heads, load, task.held_out_entries, task.synthetic_entries, device)
    return cross_fitted_maps(
        fit, load, task.held_out_entries, task.synthetic_entries, task.folds, device
    )


def _aggregate(task: CategoryTask, maps: HeldOutMaps) -> tuple[str, dict[str, float]]:
    """The aggregate of the settings, or the one that separates synthetic defects best."""
    wanted = task.config.calibration.aggregate
    if not len(maps.synthetic_NHW):
        return (SIMPLEST if wanted == AUTOMATIC else wanted), {}
    aurocs = synthetic_aurocs(maps.normal_NHW, maps.synthetic_NHW)
    return (choose_aggregate(aurocs) if wanted == AUTOMATIC else wanted), aurocs
