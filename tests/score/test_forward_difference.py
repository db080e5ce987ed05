"""What fast forward passes change is measured on real scores and told."""

import numpy as np
import pytest
import torch

from nfbmr.model.precision import BFLOAT16, REFERENCE, used_precision
from nfbmr.model.runner import BackboneRunner
from nfbmr.score.forward_difference import (
    NOT_COMPARED,
    ForwardDifference,
    compare_forward,
    relative_difference,
)
from nfbmr.score.statistics import WorkDone
from tests.conftest import Trained

CPU = torch.device("cpu")


def some(pictures: int, score: float) -> ForwardDifference:
    return ForwardDifference("float32", "float32", pictures, score, score / 2, score / 4)


def test_it_is_that_of_the_scores(trained: Trained) -> None:
    detector = trained.registry.load(trained.results[0].category)
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    runners = [
        BackboneRunner(detector.backbone_settings(), device=CPU, forward=forward)
        for forward in (BFLOAT16, REFERENCE)
    ]
    fast_B, plain_B = (
        detector.score_features(runner.features_of(pixels_BHWC)).score_B for runner in runners
    )
    difference = compare_forward(detector, runners[0], pixels_BHWC)
    expected = float((fast_B.double() - plain_B.double()).abs().max())
    assert difference.score == pytest.approx(expected, rel=0.05)
    assert 0 < difference.score_share <= difference.score / detector.threshold
    assert 0 <= difference.p_value < 1
    assert (difference.pictures, difference.calibrated) == (3, "float32")
    assert difference.numerics.startswith(used_precision(BFLOAT16, CPU))
    assert "on 3 pictures, scores differ from plain float32" in difference.sentence()


def test_a_score_far_above_the_threshold_counts_as_a_share_of_itself() -> None:
    below, above = (0.5, 0.51), (3000.0, 3003.0)
    assert relative_difference(np.array(below[:1]), np.array(below[1:]), 2.0) == pytest.approx(
        0.005
    )
    score_B, expected_B = np.array([below[0], above[0]]), np.array([below[1], above[1]])
    assert relative_difference(score_B, expected_B, 2.0) == pytest.approx(0.005)
    assert relative_difference(score_B[1:], expected_B[1:], 2.0) == pytest.approx(3 / 3003)


def test_a_run_keeps_the_largest_of_its_actors() -> None:
    work = WorkDone()
    unit = dict.fromkeys((*work.seconds, *work.cpu_seconds), 0.5)
    unit |= {"pictures": 4, "failed": 1, "encoded_bytes": 100}
    for seen in (some(8, 0.5), None, some(4, 2.0), some(8, 1.0)):
        work.add({**unit, **(seen.as_columns() if seen else NOT_COMPARED)})
    assert work.difference == some(20, 2.0)
    assert (work.pictures, work.failed, work.encoded_bytes) == (16, 4, 400)
    assert set(work.cpu_seconds.values()) == {2.0}
