"""Metrics of scores and maps: image AUROC and average precision, F1, pixel AUROC, AUPRO.

A metric that cannot be computed (one class is missing) is None, not a number that looks like one.
Shapes: N pictures, H, W height and width of a picture or its mask.

SciPy's statistics and scikit-learn take most of a second to import, and every worker imports this
module for its resizing: the metrics that need them import them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

PRO_LIMIT = 0.3
_LEVELS = 0x7C00  # half-precision numbers from 0 to the largest finite one, in order of their bits
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """How a threshold does: a picture above it is called defective."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Clopper-Pearson interval.

    Attributes:
        count: how often it happened.
        n: out of how many.
        low: lower end of the interval.
        high: upper end.
    """

    count: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """``count / n``."""
        return self.count / self.n


def image_auroc(is_defective_N: ArrayLike, score_N: ArrayLike) -> float | None:
    """Area under the ROC curve; None unless there are normal and defective pictures."""
    labels = np.asarray(is_defective_N, dtype=bool)
    if labels.all() or not labels.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, np.asarray(score_N)))


def average_precision(is_defective_N: ArrayLike, score_N: ArrayLike) -> float | None:
    """Average precision; None unless there are normal and defective pictures."""
    labels = np.asarray(is_defective_N, dtype=bool)
    if labels.all() or not labels.any():
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, np.asarray(score_N)))


def at_threshold(
    is_defective_N: ArrayLike, score_N: ArrayLike, threshold: float
) -> AtThreshold | None:
    """Precision, recall and F1 when scores strictly above the threshold count as defective.

    None unless there are normal and defective pictures. Precision is 0 where nothing is flagged.
    """
    labels = np.asarray(is_defective_N, dtype=bool)
    if labels.all() or not labels.any():
        return None
    flagged = np.asarray(score_N) > threshold
    hits = int((flagged & labels).sum())
    precision = hits / int(flagged.sum()) if flagged.any() else 0.0
    recall = hits / int(labels.sum())
    total = precision + recall
    return AtThreshold(threshold, precision, recall, 2 * precision * recall / total if total else 0)


def oracle_threshold(is_defective_N: ArrayLike, score_N: ArrayLike) -> AtThreshold | None:
    """The threshold of the best F1. An oracle: it looks at the labels, no production line can."""
    labels = np.asarray(is_defective_N, dtype=bool)
    if labels.all() or not labels.any():
        return None
    from sklearn.metrics import precision_recall_curve

    scores = np.asarray(score_N, dtype=np.float64)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # scikit-learn flags scores at the threshold too; ours lie just below.
    best = float(thresholds[int(f1[:-1].argmax())])
    return at_threshold(labels, scores, float(np.nextafter(best, -np.inf)))


def rate(count: int, n: int) -> Rate | None:
    """A share with its 95 % Clopper-Pearson interval (1934); None of nothing."""
    if n == 0:
        return None
    from scipy import stats

    interval = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    return Rate(count, n, float(interval.low), float(interval.high))


class PixelMetrics:
    """Pixel AUROC and AUPRO over any number of pictures in constant memory.

    Upsampled maps are rounded to half precision (the precision they are stored in), whose 31,744
    non-negative levels are counted; both metrics follow from the counts without further error.
    """

    def __init__(self) -> None:
        self._normal = np.zeros(_LEVELS, dtype=np.int64)
        self._defective = np.zeros(_LEVELS, dtype=np.int64)
        self._regions = np.zeros(_LEVELS, dtype=np.float64)
        self._region_count = 0

    def add(self, map_HW: ArrayLike, mask_HW: NDArray[np.bool_]) -> None:
        """Take one picture.

        Args:
            map_HW: its anomaly map at any resolution, never negative; upsampled bilinearly.
            mask_HW: True where it is defective, at the picture's resolution.
        """
        from scipy import ndimage

        levels_HW = _levels(upsample(map_HW, (mask_HW.shape[0], mask_HW.shape[1])))
        self._normal += np.bincount(levels_HW[~mask_HW], minlength=_LEVELS)
        self._defective += np.bincount(levels_HW[mask_HW], minlength=_LEVELS)
        regions_HW, count = ndimage.label(mask_HW, structure=_EIGHT_NEIGHBOURS)
        if count:
            sizes = np.bincount(regions_HW.ravel())
            weights = 1.0 / sizes[regions_HW[mask_HW]]
            self._regions += np.bincount(levels_HW[mask_HW], weights, minlength=_LEVELS)
            self._region_count += int(count)

    def auroc(self) -> float | None:
        """Pixel AUROC; None without defective or without normal pixels."""
        if not self._defective.sum() or not self._normal.sum():
            return None
        return _area(_curve(self._normal), _curve(self._defective), 1.0)

    def aupro(self, limit: float = PRO_LIMIT) -> float | None:
        """Area under the per-region overlap curve up to a false-positive rate, divided by it.

        Every connected region (8 neighbours) weighs the same, whatever its size (Bergmann et al.
        2021, IJCV, section 5.2). None without regions or without normal pixels.
        """
        if not self._region_count or not self._normal.sum():
            return None
        return _area(_curve(self._normal), _curve(self._regions), limit) / limit


def upsample(map_HW: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear, to (height, width), float32."""
    map_11HW = torch.as_tensor(np.asarray(map_HW, dtype=np.float32))[None, None]
    resized = functional.interpolate(map_11HW, size=size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())


def _levels(map_HW: NDArray[np.float32]) -> NDArray[np.int64]:
    """Ranks of non-negative half-precision numbers: their bits, which sort as they do."""
    limit = float(np.finfo(np.float16).max)
    half = np.clip(map_HW, 0.0, limit).astype(np.float16)
    return half.view(np.uint16).astype(np.int64)


def _curve(counts: NDArray[np.generic]) -> NDArray[np.float64]:
    """Share at or above each level, from the highest level down, beginning with 0."""
    cumulated = np.cumsum(counts[::-1].astype(np.float64))
    return np.concatenate([[0.0], cumulated / cumulated[-1]])


def _area(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Trapezoid area of y over x from 0 to a limit, with y interpolated at the limit."""
    inside = x <= limit
    x_inside, y_inside = x[inside], y[inside]
    if x_inside[-1] < limit:
        at_limit = float(np.interp(limit, x, y))
        x_inside, y_inside = np.append(x_inside, limit), np.append(y_inside, at_limit)
    return float(np.trapezoid(y_inside, x_inside))
