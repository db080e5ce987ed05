"""Metrics against slow references and against what they must do at the edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from nfbmr.metrics import (
    PixelMetrics,
    at_threshold,
    average_precision,
    image_auroc,
    oracle_threshold,
    rate,
    upsample,
)

LABELS = st.lists(st.booleans(), min_size=2, max_size=40)


def slow_aupro(
    maps: list[NDArray[np.float32]], masks: list[NDArray[np.bool_]], limit: float
) -> float:
    """Every threshold, every region, one after the other (Bergmann et al. 2021, section 5.2)."""
    regions = []
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        labels_HW, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
        regions += [map_HW[labels_HW == i] for i in range(1, count + 1)]
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    points = [(0.0, 0.0)]
    for threshold in thresholds:
        false_positives = float((normal >= threshold).mean())
        overlap = float(np.mean([(region >= threshold).mean() for region in regions]))
        points.append((false_positives, overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def random_case(
    seed: int, pictures: int = 4, size: int = 12
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(pictures):
        mask_HW = ndimage.binary_dilation(rng.random((size, size)) < 0.02, iterations=1)
        noise_HW = rng.random((size, size)) + mask_HW * rng.random()
        # Few levels, so that there are ties; all of them half-precision numbers.
        maps.append((np.round(noise_HW * 16) / 16).astype(np.float32))
        masks.append(mask_HW)
    masks[0][2, 3] = True
    return maps, masks


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_aupro_equals_the_slow_reference(seed: int, limit: float) -> None:
    maps, masks = random_case(seed)
    pixels = PixelMetrics()
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        pixels.add(map_HW, mask_HW)
    assert pixels.aupro(limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_pixel_auroc_equals_the_librarys(seed: int) -> None:
    maps, masks = random_case(seed)
    pixels = PixelMetrics()
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        pixels.add(map_HW, mask_HW)
    expected = roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())
    assert pixels.auroc() == pytest.approx(expected, abs=1e-9)


def test_regions_weigh_the_same_whatever_their_size() -> None:
    """A large region that is found and a small one that is missed: half, whatever the areas."""
    mask_HW = np.zeros((40, 40), dtype=bool)
    mask_HW[:20, :20] = True
    mask_HW[35, 35] = True
    map_HW = np.where(np.arange(40)[:, None] < 20, 1.0, 0.0) * mask_HW
    pixels = PixelMetrics()
    pixels.add(map_HW, mask_HW)
    aupro = pixels.aupro()
    assert aupro is not None
    assert 0.5 <= aupro < 0.7


def test_without_masks_or_regions_there_is_no_number() -> None:
    pixels = PixelMetrics()
    assert pixels.auroc() is None
    pixels.add(np.ones((3, 3)), np.zeros((9, 9), dtype=bool))
    assert pixels.auroc() is None
    assert pixels.aupro() is None


@given(LABELS, st.integers(0, 2**16))
def test_one_class_alone_has_no_image_metric(labels: list[bool], seed: int) -> None:
    scores = np.random.default_rng(seed).random(len(labels))
    values = (
        image_auroc(labels, scores),
        average_precision(labels, scores),
        oracle_threshold(labels, scores),
        at_threshold(labels, scores, 0.5),
    )
    if len(set(labels)) == 1:
        assert values == (None,) * 4
    else:
        assert all(value is not None for value in values)


@settings(max_examples=100)
@given(LABELS, st.integers(0, 2**16))
def test_no_threshold_beats_the_oracle(labels: list[bool], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 8, len(labels)) / 8
    best = oracle_threshold(labels, scores)
    if best is None:
        return
    for threshold in [-1.0, *np.unique(scores)]:
        other = at_threshold(labels, scores, float(threshold))
        assert other is not None
        assert other.f1 <= best.f1 + 1e-12


def test_precision_recall_and_f1_by_hand() -> None:
    result = at_threshold([True, True, True, False, False], [5, 4, 1, 4.5, 0], 3)
    assert result is not None
    assert (result.precision, result.recall) == (2 / 3, 2 / 3)
    assert result.f1 == pytest.approx(2 / 3)
    nothing = at_threshold([True, False], [1, 1], 1)
    assert nothing is not None
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_the_interval_is_clopper_and_pearsons() -> None:
    of_ten = rate(0, 10)
    assert of_ten is not None
    assert of_ten.low == 0.0
    assert of_ten.high == pytest.approx(1 - 0.025 ** (1 / 10), abs=1e-6)
    assert rate(0, 0) is None


def test_upsampling_keeps_constants_and_bounds() -> None:
    map_HW = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    large_HW = upsample(map_HW, (30, 41))
    assert large_HW.shape == (30, 41)
    assert large_HW.min() >= map_HW.min() - 1e-6
    assert large_HW.max() <= map_HW.max() + 1e-6
    assert np.allclose(upsample(np.ones((2, 2)), (7, 5)), 1)
