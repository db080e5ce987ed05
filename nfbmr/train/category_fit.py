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
from nfbmr.errors import FitError
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.heads import Heads
from nfbmr.model.scoring import image_scores
from nfbmr.settings import AUTOMATIC
from nfbmr.train.aggregate import SIMPLEST, choose_aggregate, synthetic_aurocs
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, Report, fit_heads

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
        held_out_entries: of the normal pictures to calibrate with.
        synthetic_entries: of held-out pictures with synthetic defects; none where the aggregate
            is given.
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

    y_NCHW = _load(task, task.fit_entries)
    heads = fit_heads(
        y_NCHW,
        task.config.heads,
        task.config.fit,
        category=task.category,
        device=device,
        report=note,
    )
    normal_BHW = anomaly_maps(heads, _load(task, task.held_out_entries), device)
    aggregate, aurocs = _aggregate(task, heads, normal_BHW, device)
    detector = Detector(
        category=task.category,
        backbone=task.backbone,
        weights=task.config.backbone.weights,
        heads=heads,
        aggregate=aggregate,
        calibration=Calibration.from_scores(image_scores(normal_BHW, aggregate).tolist()),
        false_alarm_rate=task.config.calibration.false_alarm_rate,
        lineage={**task.lineage, "settings": task.config.as_dict()},
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


def _load(task: CategoryTask, entries: Sequence[str]) -> Tensor:
    try:
        return FeatureCache(task.cache_root, task.backbone_key).load(list(entries))
    except KeyError as error:
        raise FitError(
            f"Category {task.category!r}: {error.args[0]}. Run the same command again: they are "
            "computed anew."
        ) from error


def _aggregate(
    task: CategoryTask, heads: Heads, normal_BHW: Tensor, device: str | torch.device
) -> tuple[str, dict[str, float]]:
    """The aggregate of the settings, or the one that separates synthetic defects best."""
    wanted = task.config.calibration.aggregate
    if not task.synthetic_entries:
        return (SIMPLEST if wanted == AUTOMATIC else wanted), {}
    defective_BHW = anomaly_maps(heads, _load(task, task.synthetic_entries), device)
    aurocs = synthetic_aurocs(normal_BHW, defective_BHW)
    return (choose_aggregate(aurocs) if wanted == AUTOMATIC else wanted), aurocs


@torch.inference_mode()
def anomaly_maps(heads: Heads, y_NCHW: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Anomaly maps (N, H, W) of raw features in batches of 64, float32, on the CPU."""
    heads = heads.to(device)
    maps = [heads(chunk.to(device).float()).cpu() for chunk in y_NCHW.split(64)]
    heads.to("cpu")
    return torch.cat(maps)
