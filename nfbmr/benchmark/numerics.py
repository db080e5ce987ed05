"""Whether fast forward passes cost accuracy: the same detector, the same pictures, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nfbmr.config import Config
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.sample import Sample
from nfbmr.metrics import image_auroc
from nfbmr.model.detector import Detector
from nfbmr.model.precision import REFERENCE
from nfbmr.model.runner import BackboneRunner
from nfbmr.progress import Progress
from nfbmr.score.forward_difference import relative_difference

_CHUNK = 64


@dataclass(frozen=True)
class NumericsResult:
    """One category, scored by the fast and by the plain network.

    Attributes:
        category: the product type.
        numerics: how the fast passes were computed.
        pictures: labelled test pictures.
        image_auroc: by the fast network.
        image_auroc_float32: by the plain network in float32.
        score_share: largest difference of scores, as a share of the greater of score and threshold.
        p_value: largest difference of p-values.
        changed_decisions: pictures that are anomalous in one of both only.
    """

    category: str
    numerics: str
    pictures: int
    image_auroc: float | None
    image_auroc_float32: float | None
    score_share: float
    p_value: float
    changed_decisions: int


def compare_numerics(
    detectors: Mapping[str, Detector],
    samples: Sequence[Sample],
    config: Config,
    threads: int,
    progress: Progress,
) -> list[NumericsResult]:
    """Score the labelled test pictures of every category both ways.

    Args:
        detectors: by category.
        samples: labelled pictures; those of the ``test`` split are taken.
        config: of the backbone and the run.
        threads: of a forward pass.
        progress: where it says how far it is.
    """
    fast = BackboneRunner(config.backbone, threads=threads, forward=config.run.forward)
    plain = BackboneRunner(config.backbone, threads=threads, forward=REFERENCE)
    results = []
    for category, detector in detectors.items():
        detector.heads.to(fast.device)
        own = [s for s in samples if s.category == category and s.split == "test"]
        scores: dict[str, list[float]] = {"fast": [], "plain": []}
        with progress.counter(f"both ways, {category}", len(own)) as count:
            for start in range(0, len(own), _CHUNK):
                pixels_BHWC = np.stack(
                    [
                        decode_and_resize(
                            read_bytes(sample.uri),
                            config.backbone.image_size_px,
                            config.backbone.resampling,
                        ).pixels_HWC
                        for sample in own[start : start + _CHUNK]
                    ]
                )
                for name, runner in (("fast", fast), ("plain", plain)):
                    y_BCHW = runner.features_of(pixels_BHWC)
                    scores[name] += detector.score_features(y_BCHW).score_B.tolist()
                count(len(scores["plain"]))
        results.append(_result(detector, own, scores, fast.numerics))
    return results


def _result(
    detector: Detector, samples: Sequence[Sample], scores: Mapping[str, list[float]], numerics: str
) -> NumericsResult:
    truth_N = np.array([sample.is_defective for sample in samples])
    fast_N, plain_N = np.array(scores["fast"]), np.array(scores["plain"])
    threshold, p_values = detector.threshold, detector.calibration.p_values
    return NumericsResult(
        category=detector.category,
        numerics=numerics,
        pictures=len(samples),
        image_auroc=image_auroc(truth_N, fast_N),
        image_auroc_float32=image_auroc(truth_N, plain_N),
        score_share=relative_difference(fast_N, plain_N, threshold),
        p_value=float(np.abs(p_values(fast_N) - p_values(plain_N)).max()),
        changed_decisions=int(((fast_N > threshold) != (plain_N > threshold)).sum()),
    )
