"""Scoring a handful of pictures in this process, without Ray: for looking a model up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize, resize_rgb
from nfbmr.errors import DataError, DecodeError
from nfbmr.model.detector import Detector
from nfbmr.model.runner import BackboneRunner

BATCH_SIZE = 16


@dataclass(frozen=True)
class PictureScore:
    """What a detector says of one picture, or why it says nothing.

    Attributes:
        score: the image score.
        p_value: of the score, at least 1 / (calibration size + 1).
        is_anomalous: whether the score lies above the threshold.
        map_HW: the anomaly map, float32.
        error: why there is no score; then the other values are None.
    """

    score: float | None = None
    p_value: float | None = None
    is_anomalous: bool | None = None
    map_HW: NDArray[np.float32] | None = None
    error: str | None = None

    @property
    def peak(self) -> tuple[float, float] | None:
        """Where the map is largest: (x, y) from 0 to 1, the middle of that position."""
        if self.map_HW is None:
            return None
        height, width = self.map_HW.shape
        y, x = divmod(int(self.map_HW.argmax()), width)
        return (x + 0.5) / width, (y + 0.5) / height


class PictureScorer:
    """A detector with its backbone, both on the best device there is.

    Args:
        detector: whose heads are used.
        weights: where the backbone's weights are, if not where they were at training.

    Raises:
        WeightsError: the backbone cannot be rebuilt as it was.
    """

    def __init__(self, detector: Detector, weights: str | None = None) -> None:
        self.detector = detector
        self.runner = BackboneRunner(detector.backbone_settings(weights), batch_size=BATCH_SIZE)
        detector.check_backbone(self.runner.backbone)
        detector.heads.to(self.runner.device)

    def pixels(self, picture: bytes | NDArray[np.uint8]) -> bytes:
        """The raw pixels that the backbone wants, of an encoded picture or an RGB array.

        Raises:
            DecodeError: the bytes are no readable picture.
            DataError: the array is not (H, W, 3) of uint8.
        """
        settings = self.runner.backbone.settings
        size, resampling = settings.image_size_px, settings.resampling
        if isinstance(picture, bytes):
            return decode_and_resize(picture, size, resampling).pixels_HWC.tobytes()
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(
                f"An array of {picture.dtype} and shape {picture.shape} is no picture: expected "
                "uint8 of shape (height, width, 3), RGB."
            )
        return resize_rgb(picture, size, resampling).tobytes()

    def score(self, pixels: Sequence[bytes]) -> list[PictureScore]:
        """Score pictures that ``pixels`` has prepared, in batches."""
        found: list[PictureScore] = []
        for start in range(0, len(pixels), BATCH_SIZE):
            y_BCHW = self.runner.features(pixels[start : start + BATCH_SIZE])
            scores = self.detector.score_features(y_BCHW)
            for score, map_HW in zip(scores.score_B.tolist(), scores.map_BHW, strict=True):
                found.append(
                    PictureScore(
                        score=score,
                        p_value=float(self.detector.calibration.p_values(score)),
                        is_anomalous=score > self.detector.threshold,
                        map_HW=map_HW.float().cpu().numpy(),
                    )
                )
        return found


def score_pictures(
    detector: Detector, uris: Sequence[str], weights: str | None = None
) -> list[dict[str, Any]]:
    """Score pictures one by one.

    Args:
        detector: from ``Registry.load``.
        uris: paths or URIs of encoded pictures.
        weights: where the backbone's weights are, if not where they were at training.

    Returns:
        A row per picture: ``picture, score, threshold, p_value, p_value_floor, calibration_size,
        anomalous, error``; the score's columns are None where the picture cannot be read. The
        floor is the smallest possible p-value, 1 / (calibration_size + 1).

    Raises:
        WeightsError: the backbone cannot be rebuilt as it was.
    """
    scorer = PictureScorer(detector, weights)
    return [_row(scorer, uri) for uri in uris]


def _row(scorer: PictureScorer, uri: str) -> dict[str, Any]:
    try:
        found = scorer.score([scorer.pixels(read_bytes(uri))])[0]
    except (DataError, DecodeError) as error:
        found = PictureScore(error=str(error))
    return {
        "picture": uri,
        "score": found.score,
        "threshold": scorer.detector.threshold,
        "p_value": found.p_value,
        "p_value_floor": None if found.error else scorer.detector.calibration.p_value_floor,
        "calibration_size": None if found.error else scorer.detector.calibration.n,
        "anomalous": found.is_anomalous,
        "error": found.error,
    }
