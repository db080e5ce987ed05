"""P-values of a run against uniform: small where nothing changed, a warning where it did."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ecdf

from nfbmr.errors import ConfigError, OutputError
from nfbmr.model.calibration import Calibration
from nfbmr.score.dataset import read_scores
from nfbmr.score.drift import CategoryDrift, category_drift
from nfbmr.score.tally import Tally
from nfbmr.settings import DriftSettings, RunSettings
from tests.score.committed_run import committed, finished

LIMITS = DriftSettings()


def drift_of(
    calibration: np.ndarray, scores: np.ndarray, limits: DriftSettings = LIMITS
) -> CategoryDrift:
    p_values = Calibration.from_scores(calibration).p_values(scores)
    ranks = np.rint(p_values * (len(calibration) + 1)).astype(int)
    return category_drift(np.bincount(ranks - 1, minlength=len(calibration) + 1), limits)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), m=st.integers(1, 2000))
def test_the_statistic_is_that_of_two_samples_but_for_the_p_values_own_step(
    seed: int, n: int, m: int
) -> None:
    rng = np.random.default_rng(seed)
    calibration, scores = rng.normal(size=n), rng.normal(rng.uniform(-1, 1), size=m)
    found = drift_of(calibration, scores)
    everything = np.concatenate([calibration, scores])
    steps = (ecdf(sample).cdf.evaluate(everything) for sample in (calibration, scores))
    of_two_samples = np.abs(np.subtract(*steps)).max()
    assert abs(found.ks - of_two_samples) <= 1 / (n + 1) + 1e-9
    assert (found.calibration_size, found.pictures) == (n, m)
    assert found.p_value_floor == 1 / (n + 1)
    assert 0 <= found.chance <= 1


def test_pictures_like_the_calibration_do_not_drift() -> None:
    """Over many calibrations, chance alone goes past the limit about as often as it says."""
    rng = np.random.default_rng(0)
    found = [drift_of(rng.normal(size=150), rng.normal(size=2000)) for _ in range(300)]
    assert [drift.warning for drift in found] == [None] * 300
    rare = np.mean([drift.chance < 0.1 for drift in found])
    assert 0.04 < rare < 0.16
    shares = [drift.share_below_low for drift in found]
    assert np.mean(shares) == pytest.approx(found[0].expected_below_low, abs=0.002)


@pytest.mark.parametrize(
    ("shift", "scale", "reason"),
    [
        (1.0, 1.0, r"KS statistic 0\.\d+ is above run\.drift\.max_ks = 0\.2"),
        (-1.0, 1.0, "KS statistic"),
        (0.0, 3.0, r"% of the p-values are below 0\.01, more than run\.drift\.max_share_below"),
    ],
    ids=["all scores rise", "all scores fall", "scores spread"],
)
def test_pictures_that_changed_are_a_warning(shift: float, scale: float, reason: str) -> None:
    rng = np.random.default_rng(1)
    found = drift_of(rng.normal(size=150), rng.normal(shift, scale, size=2000))
    assert found.warning is not None
    assert re.search(reason, found.warning)
    assert found.chance < 0.01


def test_few_pictures_or_wide_limits_are_no_warning() -> None:
    rng = np.random.default_rng(2)
    calibration, scores = rng.normal(size=150), rng.normal(2.0, size=99)
    assert drift_of(calibration, scores).warning is None
    assert drift_of(calibration, scores, DriftSettings(min_pictures=99)).warning is not None
    wide = DriftSettings(min_pictures=1, max_ks=1.0, max_share_below=1.0)
    assert drift_of(calibration, scores, wide).warning is None


@pytest.mark.parametrize(("n", "expected"), [(98, None), (99, None), (100, 1 / 101), (199, 0.005)])
def test_a_share_below_the_floor_cannot_be_told(n: int, expected: float | None) -> None:
    """With n = 99 the smallest p-value is 0.01 itself, which is not below 0.01."""
    found = drift_of(np.arange(n, dtype=float), np.full(10, 1e9))
    assert found.expected_below_low == expected
    assert found.share_below_low == (None if expected is None else 1.0)


def test_a_tally_is_what_a_plain_count_gives(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output, [900, 500], ["bottle", "nut"], unit_size=50)
    summary = finished(output, plan, schema, RunSettings())
    rows = read_scores(output).to_pylist()
    assert summary.failed == sum(row["status"] == "error" for row in rows)
    for category in ("bottle", "nut"):
        p_values = [r["p_value"] for r in rows if r["category"] == category and r["p_value"]]
        found = summary.drift[category]
        steps = np.arange(1, 201) / 200
        shares = np.searchsorted(np.sort(p_values), steps + 1e-9) / len(p_values)
        assert found["ks"] == pytest.approx(np.abs(shares - steps).max())
        assert found["pictures"] == len(p_values)
        assert found["share_below_low"] == np.mean(np.array(p_values) < 0.01)
    assert summary.warnings() == []


def test_scores_of_two_models_are_not_one_run(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    finished(output, plan, schema, RunSettings())
    table = read_scores(output)
    index = table.schema.get_field_index("calibration_size")
    other = table.set_column(index, schema.field(index), pa.array([50] * len(table), pa.int32()))
    tally = Tally()
    tally.add(table.to_batches()[0])
    with pytest.raises(OutputError, match="'bottle' were calibrated on different numbers"):
        tally.add(other.combine_chunks().to_batches()[0])


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.drift\.max_ks = 2: expected"):
        DriftSettings(max_ks=2.0)
    with pytest.raises(ConfigError, match=r"run\.drift\.min_pictures = 0: must be"):
        DriftSettings(min_pictures=0)
