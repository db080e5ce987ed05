"""A finished fit in a folder: everything that registering needs, today or another day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfbmr import __version__
from nfbmr.errors import WeightsError
from nfbmr.gate_settings import GateSettings
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.model_version import MetricPoint
from nfbmr.train.category_task import REPORT_FILE, FitReport
from nfbmr.train.evidence import EVIDENCE_FILE, Evidence

_FILES = (JSON_FILE, TENSORS_FILE, REPORT_FILE, EVIDENCE_FILE)
SYNTHETIC_TAG = "nfbmr.synthetic_auroc"
DATA_TAG = "nfbmr.data_fingerprint"
SETTINGS_TAG = "nfbmr.settings_fingerprint"
FINGERPRINT_TAGS = (DATA_TAG, SETTINGS_TAG)
"""Two versions that have both in common are the same fit over again."""


@dataclass(frozen=True)
class FinishedFit:
    """What a worker left in a folder.

    Attributes:
        folder: with the detector's files, ``fit.json``, ``evidence.json`` and pictures.
        description: the content of ``detector.json``.
        report: the content of ``fit.json``.
        evidence: the content of ``evidence.json``.
    """

    folder: Path
    description: dict[str, Any]
    report: FitReport
    evidence: Evidence

    @classmethod
    def load(cls, folder: Path, origin: str = "") -> FinishedFit:
        """Read a folder; the detector is loaded once, so that a damaged one is never registered.

        Args:
            folder: with the files.
            origin: what messages call it, if not by its own name.

        Raises:
            WeightsError: it is not a finished fit, or is damaged.
        """
        missing = [n for n in _FILES if not (folder / n).exists()]
        if missing:
            raise WeightsError(
                f"{origin or folder} is no finished fit: {', '.join(missing)} not found. Expected "
                "what jobs/train.py keeps when the registry is out of reach."
            )
        Detector.load(folder)
        try:
            return cls(
                folder,
                json.loads((folder / JSON_FILE).read_text()),
                FitReport.load(folder),
                Evidence.from_json((folder / EVIDENCE_FILE).read_text()),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{origin or folder} is damaged ({type(error).__name__}: {error}): fit "
                "the category again."
            ) from error

    @property
    def category(self) -> str:
        """The product type."""
        return str(self.description["category"])

    @property
    def fitted_at(self) -> str:
        """When, in ISO 8601; empty where the lineage does not say."""
        return str(self.description["lineage"].get("fitted_at", ""))

    @property
    def gate(self) -> GateSettings:
        """The gate's settings of the fit."""
        return GateSettings(**self._settings.get("gate", {}))

    @property
    def false_alarm_rate(self) -> float:
        """The rate that the threshold stands for."""
        return float(self.description["false_alarm_rate"])

    @property
    def _settings(self) -> dict[str, Any]:
        return dict(self.description["lineage"].get("settings", {}))

    def params(self) -> dict[str, Any]:
        """All settings as ``section.key``."""
        return _flat(self._settings)

    def metrics(self) -> dict[str, float]:
        """The final numbers."""
        report = self.report
        metrics = {
            "threshold": report.threshold,
            "p_value_floor": report.p_value_floor,
            "calibration_size": float(len(self.description["calibration_scores"])),
            "fit_seconds": report.seconds,
        }
        metrics.update({f"synthetic_auroc_{k}": v for k, v in report.synthetic_aurocs.items()})
        return metrics

    def curves(self) -> list[MetricPoint]:
        """Losses per epoch."""
        return [
            MetricPoint(name, value, epoch.epoch)
            for epoch in self.report.losses
            for name, value in epoch.losses.items()
        ]

    def tags(self) -> dict[str, str]:
        """What a version says of itself without its files being read."""
        backbone = self.description["backbone"]
        lineage = {k: v for k, v in self.description["lineage"].items() if k != "settings"}
        calibration = Calibration.from_scores(self.description["calibration_scores"])
        tags = {
            "nfbmr.code_version": __version__,
            "nfbmr.version": str(lineage.get("code_version", __version__)).partition("+")[0],
            "nfbmr.category": self.category,
            "nfbmr.backbone": f"{backbone['name']}:{backbone['layer']}",
            "nfbmr.weights_hash": backbone["weights_hash"],
            "nfbmr.aggregate": self.report.aggregate,
            "nfbmr.calibration_size": str(calibration.n),
            "nfbmr.threshold": f"{self.report.threshold:.6g}",
            "nfbmr.false_alarm_rate": f"{self.false_alarm_rate:g}",
            **{f"nfbmr.{name}": _text(value) for name, value in lineage.items()},
        }
        evidence = self.report.synthetic_aurocs.get(self.report.aggregate)
        if evidence is not None:
            tags[SYNTHETIC_TAG] = f"{evidence:.6f}"
        return tags


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
