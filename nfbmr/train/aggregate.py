"""Choosing how a map becomes an image score, without any real defect.

The paper does not say how; on real photographs the choice is worth ten points of AUROC (DESIGN).
Here each aggregate is judged by how well it tells held-out normal pictures from copies of them
with a synthetic defect.

Shapes: B pictures, H, W height and width of the anomaly map.
"""

from __future__ import annotations

from torch import Tensor

from nfbmr.model.scoring import AGGREGATES, image_scores

SIMPLEST = "mean"
NEEDED_GAIN_AUROC = 0.05
"""By how much an aggregate must beat the mean. Patches cut into a picture stand for small local
defects only, so they lean towards local aggregates; they overrule the mean, which also sees large
and faint defects, only where the gain is large. Unchanged since this file was
first written; ``benchmark.py accuracy`` prints what every choice rests on."""


def synthetic_aurocs(normal_BHW: Tensor, defective_BHW: Tensor) -> dict[str, float]:
    """AUROC of every aggregate between maps of normal pictures and of synthetic defects.

    Args:
        normal_BHW: anomaly maps of held-out normal pictures.
        defective_BHW: anomaly maps of pictures with synthetic defects.
    """
    from sklearn.metrics import roc_auc_score

    labels = [0] * len(normal_BHW) + [1] * len(defective_BHW)

    def auroc(aggregate: str) -> float:
        scores = [*image_scores(normal_BHW, aggregate), *image_scores(defective_BHW, aggregate)]
        return float(roc_auc_score(labels, [float(score) for score in scores]))

    return {aggregate: auroc(aggregate) for aggregate in AGGREGATES}


def choose_aggregate(aurocs: dict[str, float]) -> str:
    """The mean, unless another aggregate is better by ``NEEDED_GAIN_AUROC``; then the best."""
    best = max(aurocs, key=lambda aggregate: aurocs[aggregate])
    return best if aurocs[best] >= aurocs[SIMPLEST] + NEEDED_GAIN_AUROC else SIMPLEST
