"""Third stage of the scoring pipeline: pixels → features → scores and maps.

Shapes: B pictures of a unit, H, W height and width of the backbone's input or of the map.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.errors import NfbmrError
from nfbmr.model.detector import Detector, Scores
from nfbmr.model.precision import REFERENCE
from nfbmr.model.runner import BackboneRunner, best_device
from nfbmr.model.scoring import map_peak
from nfbmr.score.forward_difference import ForwardDifference, compare_forward
from nfbmr.score.heads_cache import HeadsCache
from nfbmr.score.stage_clock import StageClock
from nfbmr.settings import RunSettings


class ForwardPasses:
    """One backbone on its device, and heads as categories come by.

    Args:
        load: fetches a category's detector.
        settings: resources.
        weights: where the backbone's weights are, if not where they were at training.

    Attributes:
        difference: what the fast forward passes changed on the first pictures, once they came.
    """

    def __init__(
        self, load: Callable[[str], Detector], settings: RunSettings, weights: str | None
    ) -> None:
        self.settings = settings
        self.weights = weights
        self.runners: dict[str, BackboneRunner] = {}
        self.difference: ForwardDifference | None = None
        self.heads = HeadsCache(load, settings.heads_cache_mib, best_device())

    def _runner(self, detector: Detector) -> BackboneRunner:
        """The backbone of a detector; categories on the same one share it."""
        key = json.dumps(detector.backbone, sort_keys=True)
        if key not in self.runners:
            runner = BackboneRunner(
                detector.backbone_settings(self.weights),
                batch_size=self.settings.batch_size,
                threads=self.settings.cpus_per_actor,
                forward=self.settings.forward,
            )
            detector.check_backbone(runner.backbone)
            self.runners[key] = runner
        return self.runners[key]

    def columns(
        self, category: str, pixels_BHWC: NDArray[np.uint8], clock: StageClock
    ) -> dict[str, Sequence[Any]]:
        """Columns of a unit's readable pictures, in order.

        Args:
            category: of them all.
            pixels_BHWC: (B, H, W, 3), uint8.
            clock: counts the seconds.

        Raises:
            NfbmrError: the model cannot be had, or its scores are not finite.
        """
        detector = self.heads.get(category)
        runner = self._runner(detector)
        with clock.stage("forward", runner.threads):
            y_BCHW = runner.features_of(pixels_BHWC)
            runner.wait()
        with clock.stage("heads", runner.threads):
            scores = detector.score_features(y_BCHW)
            columns = score_columns(detector, scores)
        self._compare_once(detector, runner, pixels_BHWC)
        return columns

    def _compare_once(
        self, detector: Detector, runner: BackboneRunner, pixels_BHWC: NDArray[np.uint8]
    ) -> None:
        """See what the fast forward passes change, on the first pictures that come."""
        count = self.settings.compared_pictures
        if count > 0 and self.difference is None and self.settings.forward != REFERENCE:
            pixels_BHWC = pixels_BHWC[:count]
            self.difference = compare_forward(detector, runner, pixels_BHWC, self.weights)


def score_columns(detector: Detector, scores: Scores) -> dict[str, Sequence[Any]]:
    """Columns of scored pictures, on the CPU, in order; maps in float32.

    Raises:
        NfbmrError: no score is finite.
    """
    peak_x_B, peak_y_B = map_peak(scores.map_BHW)
    score_B = scores.score_B.double().cpu().numpy()
    if len(score_B) and not np.isfinite(score_B).any():
        raise NfbmrError(
            f"{len(score_B)} scores of category {detector.category!r} are not finite numbers: the "
            "model is damaged; fit the category again"
        )
    count, height, width = scores.map_BHW.shape
    threshold = detector.threshold
    return {
        "score": score_B.tolist(),
        "p_value": detector.calibration.p_values(score_B).tolist(),
        "calibration_size": [detector.calibration.n] * count,
        "is_anomalous": (score_B > threshold).tolist(),
        "threshold": [threshold] * count,
        "anomaly_map": list(scores.map_BHW.flatten(1).float().cpu().numpy()),
        "map_height": [height] * count,
        "map_width": [width] * count,
        "peak_x": peak_x_B.tolist(),
        "peak_y": peak_y_B.tolist(),
    }
