import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nfbmr.errors import ConfigError, DataError
from nfbmr.model.calibration import Calibration

scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(scores, st.floats(-1e6, 1e6))
def test_p_value_is_one_plus_those_not_below_over_n_plus_one(
    held_out: list[float], score: float
) -> None:
    expected = (1 + sum(value >= score for value in held_out)) / (len(held_out) + 1)
    assert float(Calibration.from_scores(held_out).p_values(score)) == pytest.approx(expected)


@given(scores, st.floats(0.001, 0.999), st.floats(-1e6, 1e6))
def test_above_the_threshold_means_p_value_at_most_the_rate(
    held_out: list[float], rate: float, score: float
) -> None:
    calibration = Calibration.from_scores(held_out)
    assume(rate >= calibration.p_value_floor)
    p_value = float(calibration.p_values(score))
    assume(abs(p_value - rate) > 1e-6)
    assert (score > calibration.threshold(rate)) == (p_value <= rate)


@given(scores, st.floats(0.0001, 0.9))
def test_a_rate_below_the_floor_says_how_many_pictures_are_needed(
    held_out: list[float], rate: float
) -> None:
    calibration = Calibration.from_scores(held_out)
    assume(rate < calibration.p_value_floor - 1e-9)
    needed = math.ceil(1 / rate - 1e-9) - 1
    with pytest.raises(ConfigError, match=f"at least {needed}"):
        calibration.threshold(rate)
    Calibration.from_scores(np.arange(needed)).threshold(rate)


def test_false_alarms_on_new_normals_stay_at_the_promised_rate() -> None:
    rng = np.random.default_rng(0)
    rate, trials, alarms = 0.1, 4000, 0
    for _ in range(trials):
        calibration = Calibration.from_scores(rng.normal(size=19))
        alarms += int(rng.normal() > calibration.threshold(rate))
    # Exactly 0.1 in expectation: (n + 1) · rate is whole. Four standard deviations of slack.
    assert abs(alarms / trials - rate) < 4 * math.sqrt(rate * (1 - rate) / trials)


def test_nothing_and_not_a_number_cannot_calibrate() -> None:
    with pytest.raises(DataError, match="no held-out"):
        Calibration.from_scores([])
    with pytest.raises(DataError, match="1 of 2"):
        Calibration.from_scores([1.0, math.nan])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 7.0])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        Calibration.from_scores([1.0]).threshold(rate)
