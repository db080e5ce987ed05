"""What fast forward passes change: scores against those of the plain network in float32.

Shapes: B pictures, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.model.detector import Detector
from nfbmr.model.precision import REFERENCE
from nfbmr.model.runner import BackboneRunner

_PREFIX = "difference_"
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class ForwardDifference:
    """The largest differences seen on some pictures.

    Attributes:
        numerics: how the fast passes were computed, in words.
        calibrated: precision that the detectors were calibrated with.
        pictures: that were compared.
        score: largest difference of two scores.
        score_share: largest relative difference, see ``relative_difference``.
        p_value: largest difference of two p-values.
    """

    numerics: str
    calibrated: str
    pictures: int
    score: float
    score_share: float
    p_value: float

    def merged(self, other: ForwardDifference) -> ForwardDifference:
        """What both saw together."""
        return ForwardDifference(
            self.numerics,
            self.calibrated,
            self.pictures + other.pictures,
            max(self.score, other.score),
            max(self.score_share, other.score_share),
            max(self.p_value, other.p_value),
        )

    def sentence(self) -> str:
        """For people."""
        return (
            f"Forward passes in {self.numerics} (calibrated in {self.calibrated}): on "
            f"{self.pictures} pictures, scores differ from plain float32 by at most "
            f"{self.score:.2g} ({self.score_share:.2%}), p-values by at most "
            f"{self.p_value:.2g}"
        )

    def as_columns(self) -> dict[str, Any]:
        """As columns of a row of statistics."""
        return {f"{_PREFIX}{name}": value for name, value in asdict(self).items()}

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> ForwardDifference | None:
        """What ``as_columns`` wrote, or None where nothing was compared."""
        if row.get(f"{_PREFIX}pictures") is None:
            return None
        return cls(**{name: row[f"{_PREFIX}{name}"] for name in cls.__slots__})


NOT_COMPARED_BECAUSE = "not_compared"
"""The column that says why a comparison failed."""

NOT_COMPARED: dict[str, None] = {f"{_PREFIX}{name}": None for name in ForwardDifference.__slots__}
"""The columns of a row without a comparison."""


def relative_difference(
    score_B: NDArray[np.float64], expected_B: NDArray[np.float64], threshold: float
) -> float:
    """The largest difference of a picture's two scores, as a share of its score or the threshold.

    The greater of both counts. Of the threshold alone it would say nothing: a picture like none in
    training may score a thousand times as much, and its last digits then are several thresholds.

    Args:
        score_B: (B,), by the fast network.
        expected_B: (B,), by the plain one.
        threshold: of the detector.
    """
    scale_B = np.maximum(np.abs(expected_B), max(abs(threshold), _SMALLEST))
    return float((np.abs(score_B - expected_B) / scale_B).max())


def compare_forward(
    detector: Detector,
    runner: BackboneRunner,
    pixels_BHWC: NDArray[np.uint8],
    weights: str | None = None,
) -> ForwardDifference | None:
    """Score pictures by the fast and by the plain network; the latter is built for that alone.

    Args:
        detector: of the pictures' category, its heads on the runner's device.
        runner: of the fast passes.
        pixels_BHWC: (B, H, W, 3), uint8.
        weights: where the backbone's weights are, if not where they were at training.

    Returns:
        The differences; None where no two scores are finite.
    """
    plain = BackboneRunner(
        detector.backbone_settings(weights),
        batch_size=1,
        threads=runner.threads,
        device=runner.device,
        forward=REFERENCE,
    )
    score_B, expected_B = (
        detector.score_features(each.features_of(pixels_BHWC)).score_B.double().cpu().numpy()
        for each in (runner, plain)
    )
    # What is like nothing in training may score more than there are numbers for.
    finite_B = np.isfinite(score_B) & np.isfinite(expected_B)
    if not finite_B.any():
        return None
    score_B, expected_B = score_B[finite_B], expected_B[finite_B]
    p_values = detector.calibration.p_values
    return ForwardDifference(
        numerics=runner.numerics,
        calibrated=str(detector.backbone["precision"]),
        pictures=len(score_B),
        score=float(np.abs(score_B - expected_B).max()),
        score_share=relative_difference(score_B, expected_B, detector.threshold),
        p_value=float(np.abs(p_values(score_B) - p_values(expected_B)).max()),
    )
