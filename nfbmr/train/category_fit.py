"""One category, from cached features to a saved detector. Knows nothing of Ray or MLflow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr import storage
from nfbmr.errors import FeaturesError
from nfbmr.fit_settings import AUTOMATIC
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.scoring import image_scores
from nfbmr.train.aggregate import SIMPLEST, choose_aggregate, synthetic_aurocs
from nfbmr.train.category_task import CategoryTask, FitReport
from nfbmr.train.data_parallel import Workers
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, Keeper, Report, fit_heads
from nfbmr.train.fit_checkpoint import FitCheckpoint
from nfbmr.train.held_out_maps import (
    HeldOutMaps,
    anomaly_maps,
    cross_fitted_maps,
    held_out_maps,
)
from nfbmr.train.judging import JudgedPictures
from nfbmr.train.sample_pictures import draw_losses
from nfbmr.train.training_features import InCache
from nfbmr.train.trimming import PILOT, flow_alone, note_pilot
from nfbmr.train.worst import (
    CROSS_FITTED,
    FITTED,
    HELD_OUT,
    TRIMMED,
    WorstPicture,
    judged,
    kept_pictures,
    worst_of,
)

__all__ = ["CategoryTask", "FitReport", "fit_category"]

_CHUNK = 128


def fit_category(
    task: CategoryTask,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    report: Report = lambda _: None,
) -> FitReport | None:
    """Fit, choose the aggregate, calibrate, and save the detector with its report.

    Args:
        task: what to fit.
        folder: where ``detector.safetensors``, ``detector.json`` and ``fit.json`` are written.
        device: where it is fitted.
        report: called after every epoch.

    Returns:
        The report; None on all but the first of several workers, which write nothing.

    Raises:
        FitError: the fit diverged, or features that were computed are not in the cache.
    """
    losses: list[EpochLosses] = []
    keeper = _checkpoint(task, "fit", losses)

    def note(epoch: EpochLosses) -> None:
        losses.append(epoch)
        report(epoch)

    left_out = _left_out(task, device, report)
    stay = [entry for entry in task.fit_entries if entry not in left_out]
    heads = _fit(task, stay, device, note, keeper=keeper)
    if not Workers.current().is_first:
        return None
    maps = _calibration_maps(task, heads, device, left_out)
    aggregate, aurocs = _aggregate(task, maps)
    trimmed = len(task.fit_entries) - len(stay)
    counts = {"pictures_fitted": len(stay), "pictures_trimmed": trimmed}
    scores = image_scores(maps.normal_NHW, aggregate)
    detector = Detector(
        category=task.category,
        backbone=task.backbone,
        weights=task.config.backbone.weights,
        heads=heads,
        aggregate=aggregate,
        calibration=Calibration.from_scores(scores.tolist()),
        false_alarm_rate=task.config.calibration.false_alarm_rate,
        lineage=_lineage(task) | counts | {"synthetic_aurocs": aurocs},
    )
    detector.save(folder)
    _to_judge(task, stay, heads, maps, device).leave(folder, aggregate)
    draw_losses(folder, losses)
    result = FitReport(
        losses=losses,
        aggregate=aggregate,
        synthetic_aurocs=aurocs,
        threshold=detector.threshold,
        p_value_floor=detector.calibration.p_value_floor,
        seconds=keeper.seconds,
        worst=_worst(task, heads, maps, aggregate, left_out, device),
        trimmed=trimmed,
    )
    result.save(folder)
    return result


def _lineage(task: CategoryTask) -> dict[str, Any]:
    settings = task.config.as_dict()
    return {**task.lineage, "calibration_folds": task.folds, "settings": settings}


def _checkpoint(task: CategoryTask, name: str, losses: list[EpochLosses]) -> FitCheckpoint:
    root, interval_s = task.state_root, task.config.night.checkpoint_interval_s
    uri = None if root is None else storage.join(root, f"{name}.safetensors")
    return FitCheckpoint(uri, losses, interval_s)


def _fit(
    task: CategoryTask,
    entries: Sequence[str],
    device: str | torch.device,
    report: Report = lambda _: None,
    workers: Workers | None = None,
    keeper: Keeper | None = None,
    settings: HeadsSettings | None = None,
) -> Heads:
    cache = FeatureCache(task.cache_root, task.backbone_key)
    try:
        return fit_heads(
            InCache(cache, entries),
            settings or task.config.heads,
            task.config.fit,
            category=task.category,
            device=device,
            report=report,
            workers=workers,
            keeper=keeper,
            memory_share=task.memory_share,
        )
    except FeaturesError as error:
        raise FeaturesError(f"Category {task.category!r}: {error}") from error


def _left_out(task: CategoryTask, device: str | torch.device, report: Report) -> set[str]:
    """Entries that are not fitted on, because a flow that is fitted on all fits them worst.

    See ``trimming``; the same on every worker.
    """
    settings = task.config.fit
    if settings.trim_share == 0:
        return set()
    losses: list[EpochLosses] = []
    keeper = _checkpoint(task, PILOT, losses)
    note = note_pilot(losses, report)
    heads = _fit(task, task.fit_entries, device, note, None, keeper, flow_alone(task.config))
    score_N = _scores(task, heads, SIMPLEST, device)
    score_N = Workers.current().mean(score_N.to(device)).cpu()
    kept_N = kept_pictures(score_N, settings.trim_share, settings.trim_deviation)
    return {e for e, kept in zip(task.fit_entries, kept_N.tolist(), strict=True) if not kept}


def _scores(task: CategoryTask, heads: Heads, aggregate: str, device: str | torch.device) -> Tensor:
    """Image scores (N,) of the pictures to fit on, read so many at a time."""
    entries = list(task.fit_entries)
    starts = range(0, len(entries), _CHUNK)
    parts = [
        image_scores(anomaly_maps(heads, _load(task, entries[i : i + _CHUNK]), device), aggregate)
        for i in starts
    ]
    return torch.cat(parts)


def _worst(
    task: CategoryTask,
    heads: Heads,
    maps: HeldOutMaps,
    aggregate: str,
    left_out: set[str],
    device: str | torch.device,
) -> list[WorstPicture]:
    """The training pictures that fit worst; by cross-fitted scores where there are any."""

    def at(entries: Sequence[str]) -> list[str]:
        return [task.uris.get(entry, entry) for entry in entries]

    held_out_N = image_scores(maps.normal_NHW, aggregate)
    if task.folds:
        pictures = judged(CROSS_FITTED, at(maps.normal_entries), held_out_N)
    else:
        pictures = judged(FITTED, at(task.fit_entries), _scores(task, heads, aggregate, device))
        pictures += judged(HELD_OUT, at(maps.normal_entries), held_out_N)
    gone = set(at(sorted(left_out)))
    pictures = [replace(p, role=TRIMMED) if p.uri in gone else p for p in pictures]
    return worst_of(pictures, task.config.night.worst_listed)


def _to_judge(
    task: CategoryTask,
    fitted: Sequence[str],
    heads: Heads,
    maps: HeldOutMaps,
    device: str | torch.device,
) -> JudgedPictures:
    """The maps by name, with those of the labelled test pictures."""
    names = list(task.labelled_entries)
    labelled = anomaly_maps(heads, _load(task, names), device) if names else torch.empty(0)
    held_out = set(task.held_out_entries)
    return JudgedPictures(
        normal=dict(zip(maps.normal_entries, maps.normal_NHW, strict=True)),
        synthetic=dict(zip(maps.synthetic_entries, maps.synthetic_NHW, strict=True)),
        labelled=dict(zip(names, labelled, strict=True)),
        defective=frozenset(n for n, defective in task.labelled_entries.items() if defective),
        fitted=tuple(entry for entry in fitted if entry not in held_out),
        uris=task.uris,
        cache_root=task.cache_root,
        backbone_key=task.backbone_key,
    )


def _load(task: CategoryTask, entries: Sequence[str]) -> Tensor:
    try:
        return FeatureCache(task.cache_root, task.backbone_key).load(list(entries))
    except FeaturesError as error:
        raise FeaturesError(f"Category {task.category!r}: {error}") from error


def _calibration_maps(
    task: CategoryTask, heads: Heads, device: str | torch.device, left_out: set[str]
) -> HeldOutMaps:
    """Maps of the pictures that calibrate, by heads that were not fitted on them."""

    def load(entries: Sequence[str]) -> Tensor:
        return _load(task, entries)

    numbers = itertools.count()

    def fit(entries: Sequence[str]) -> Heads:
        """One fold; its state is kept like that of the fit on all pictures."""
        stay = [entry for entry in entries if entry not in left_out]
        losses: list[EpochLosses] = []
        keeper = _checkpoint(task, f"fold-{next(numbers)}", losses)
        return _fit(task, stay, device, losses.append, Workers(), keeper)

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
