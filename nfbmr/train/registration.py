"""From a fitted detector to a registered, judged and perhaps promoted version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfbmr import __version__
from nfbmr.model_version import MetricPoint, ModelVersion
from nfbmr.registry import Registry
from nfbmr.train.category_fit import CategoryTask, FitReport
from nfbmr.train.gate import EVIDENCE_TAG, Decision, decide
from nfbmr.train.ray_fit import Fitted


def register(
    fitted: Fitted, task: CategoryTask, registry: Registry
) -> tuple[ModelVersion, Decision]:
    """Register a fitted detector as challenger, and promote it where the gate says so.

    Raises:
        RegistryError: the registry refused or could not be reached.
    """
    report = fitted.report
    evidence = report.synthetic_aurocs.get(report.aggregate)
    champion = registry.find(fitted.category)
    tags = {
        "nfbmr.version": __version__,
        "nfbmr.category": fitted.category,
        "nfbmr.backbone": f"{task.backbone['name']}:{task.backbone['layer']}",
        "nfbmr.weights_hash": task.backbone["weights_hash"],
        "nfbmr.aggregate": report.aggregate,
        **{f"nfbmr.{name}": str(value) for name, value in task.lineage.items()},
    }
    if evidence is not None:
        tags[EVIDENCE_TAG] = f"{evidence:.6f}"
    with fitted.checkpoint.as_directory() as folder:
        version = registry.register(
            fitted.category,
            Path(folder),
            params=_flat(task.config.as_dict()),
            metrics=_metrics(report),
            curves=_curves(report),
            tags=tags,
        )
    decision = decide(evidence, champion)
    if decision.promote:
        registry.promote(fitted.category, version.version, {"nfbmr.decision": decision.reason})
    return version, decision


def _metrics(report: FitReport) -> dict[str, float]:
    metrics = {
        "threshold": report.threshold,
        "p_value_floor": report.p_value_floor,
        "fit_seconds": report.seconds,
    }
    metrics.update({f"synthetic_auroc_{k}": v for k, v in report.synthetic_aurocs.items()})
    return metrics


def _curves(report: FitReport) -> list[MetricPoint]:
    return [
        MetricPoint(name, value, epoch.epoch)
        for epoch in report.losses
        for name, value in epoch.losses.items()
    ]


def last_losses(report: FitReport) -> dict[str, float]:
    """Of the last epochs, by name; ``mapper_loss`` is source plus target."""
    last = {name: value for epoch in report.losses for name, value in epoch.losses.items()}
    if "source_loss" in last:
        last["mapper_loss"] = last["source_loss"] + last["target_loss"]
    return last


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
