"""Third stage of the scoring pipeline: pixels → features → scores and maps.

Shapes: B pictures of a unit, H, W height and width of the backbone's input or of the map.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.errors import NfbmrError, StoreError, WorkerError, without_logins
from nfbmr.model.detector import Detector, Scores
from nfbmr.model.precision import REFERENCE
from nfbmr.model.runner import BackboneRunner, best_device
from nfbmr.model.scoring import map_peak
from nfbmr.score.forward_difference import ForwardDifference, compare_forward
from nfbmr.score.heads_cache import HeadsCache
from nfbmr.score.stage_clock import StageClock
from nfbmr.settings import RunSettings
from nfbmr.store_faults import is_stores, patience


class ModelError(NfbmrError):
    """One category's own model cannot score: its pictures become errors, the others' do not."""


class ForwardPasses:
    """One backbone on its device, and heads as categories come by.

    Args:
        load: fetches a category's detector.
        settings: resources.
        weights: where the backbone's weights are, if not where they were at training.

    Attributes:
        difference: what the fast forward passes changed on the first pictures, once they came.
        not_compared: why that is not known, where the comparison failed.
    """

    def __init__(
        self, load: Callable[[str], Detector], settings: RunSettings, weights: str | None
    ) -> None:
        self.settings = settings
        self.weights = weights
        self.runners: dict[str, BackboneRunner] = {}
        self.difference: ForwardDifference | None = None
        self.not_compared: str | None = None
        self.heads = HeadsCache(load, settings.heads_cache_mib, best_device())

    def _runner(self, detector: Detector) -> BackboneRunner:
        """The backbone of a detector; categories on the same one share it."""
        key = json.dumps(detector.backbone, sort_keys=True)
        if key not in self.runners:
            self.runners[key] = self._loaded(detector)
        return self.runners[key]

    def _loaded(self, detector: Detector) -> BackboneRunner:
        """The backbone of a detector; the driver could build it, so what fails is this worker's.

        Raises:
            StoreError: the store failed for longer than its patience.
            WorkerError: this worker does not find the weights, or has other ones or another timm.
        """
        try:
            with patience(self.settings.store_patience_s):
                runner = BackboneRunner(
                    detector.backbone_settings(self.weights),
                    batch_size=self.settings.batch_size,
                    threads=self.settings.cpus_per_actor,
                    forward=self.settings.forward,
                )
            detector.check_backbone(runner.backbone)
        except NfbmrError as error:
            kind = StoreError if is_stores(error) else WorkerError
            raise kind(
                f"A worker on {platform.node()} cannot load the backbone: {error} What was "
                "finished stays. See that every node reads the same weights and has the same "
                "packages, then run the same command again."
            ) from error
        return runner

    def columns(
        self, category: str, pixels_BHWC: NDArray[np.uint8], clock: StageClock
    ) -> dict[str, Sequence[Any]]:
        """Columns of a unit's readable pictures, in order.

        Args:
            category: of them all.
            pixels_BHWC: (B, H, W, 3), uint8.
            clock: counts the seconds.

        Raises:
            ModelError: the category's model is damaged, or no score is finite.
            NfbmrError: the model or its backbone cannot be had, which is no fault of the pictures.
        """
        detector = self.heads.get(category)
        runner = self._runner(detector)
        with clock.stage("forward", runner.threads):
            y_BCHW = runner.features_of(pixels_BHWC)
            runner.wait()
        try:
            with clock.stage("heads", runner.threads):
                scores = detector.score_features(y_BCHW)
                columns = score_columns(detector, scores)
        except NfbmrError as error:
            raise ModelError(str(error)) from error
        self._compare_once(detector, runner, pixels_BHWC)
        return columns

    def _compare_once(
        self, detector: Detector, runner: BackboneRunner, pixels_BHWC: NDArray[np.uint8]
    ) -> None:
        """See what the fast forward passes change, on the first pictures that come.

        It only measures: where it fails, say for want of memory, the scores are good all the same.
        """
        count = self.settings.compared_pictures
        is_known = self.difference is not None or self.not_compared is not None
        if count == 0 or is_known or self.settings.forward == REFERENCE:
            return
        try:
            with patience(0.0):
                pixels_BHWC = pixels_BHWC[:count]
                self.difference = compare_forward(detector, runner, pixels_BHWC, self.weights)
        except Exception as error:
            self.not_compared = without_logins(f"{type(error).__name__}: {error}")


def score_columns(detector: Detector, scores: Scores) -> dict[str, Sequence[Any]]:
    """Columns of scored pictures, on the CPU, in order; maps in float32.

    Raises:
        ModelError: no score is finite.
    """
    peak_x_B, peak_y_B = map_peak(scores.map_BHW)
    score_B = scores.score_B.double().cpu().numpy()
    if len(score_B) and not np.isfinite(score_B).any():
        raise ModelError(
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
