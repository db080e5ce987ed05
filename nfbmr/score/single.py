"""Scoring a handful of pictures in this process, without Ray: for looking a model up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.errors import DataError, DecodeError
from nfbmr.model.detector import Detector
from nfbmr.model.runner import BackboneRunner


def score_pictures(
    detector: Detector, uris: Sequence[str], weights: str | None = None
) -> list[dict[str, Any]]:
    """Score pictures one by one.

    Args:
        detector: from ``Registry.load``.
        uris: paths or URIs of encoded pictures.
        weights: where the backbone's weights are, if not where they were at training.

    Returns:
        A row per picture: ``picture, score, threshold, p_value, calibration_size, anomalous,
        error``; the score's columns are None where the picture cannot be read. The smallest
        possible p-value is 1 / (calibration_size + 1).

    Raises:
        WeightsError: the backbone cannot be rebuilt as it was.
    """
    runner = BackboneRunner(detector.backbone_settings(weights), batch_size=1)
    detector.check_backbone(runner.backbone)
    detector.heads.to(runner.device)
    return [_score_one(detector, runner, uri) for uri in uris]


def _score_one(detector: Detector, runner: BackboneRunner, uri: str) -> dict[str, Any]:
    row: dict[str, Any] = {"picture": uri, "score": None, "threshold": detector.threshold}
    row |= {"p_value": None, "calibration_size": None, "anomalous": None, "error": None}
    settings = runner.backbone.settings
    try:
        decoded = decode_and_resize(read_bytes(uri), settings.image_size_px, settings.resampling)
    except (DataError, DecodeError) as error:
        return {**row, "error": str(error)}
    score = float(detector.score_features(runner.features([decoded.pixels_HWC.tobytes()])).score_B)
    row["score"] = score
    row["p_value"] = float(detector.calibration.p_values(score))
    row["calibration_size"] = detector.calibration.n
    row["anomalous"] = score > detector.threshold
    return row
