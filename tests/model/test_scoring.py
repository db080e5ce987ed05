import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.errors import ConfigError
from nfbmr.model.scoring import AGGREGATES, anomaly_map, flow_only_map, image_scores, map_peak


def test_anomaly_map_equals_equation_14_in_a_loop() -> None:
    torch.manual_seed(0)
    y, y_hat, z, z_hat = torch.randn(4, 2, 5, 3, 4, dtype=torch.float64)
    result_BHW = anomaly_map(y, y_hat, z, z_hat)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                source = sum(float(y[b, c, i, j] - y_hat[b, c, i, j]) ** 2 for c in range(5))
                target = sum(float(z[b, c, i, j] - z_hat[b, c, i, j]) ** 2 for c in range(5))
                assert float(result_BHW[b, i, j]) == pytest.approx((source + target) / 2, rel=1e-5)


def test_perfect_mapping_scores_zero() -> None:
    y, z = torch.randn(2, 1, 4, 2, 2)
    assert float(anomaly_map(y, y, z, z).abs().max()) == 0.0


def test_flow_only_map_is_half_the_squared_norm() -> None:
    z_BCHW = torch.tensor([[[[3.0]], [[4.0]]]])
    assert float(flow_only_map(z_BCHW)) == pytest.approx(12.5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.floats(0.1, 100),
)
def test_aggregates_are_homogeneous_and_bounded_by_the_map(
    seed: int, height: int, width: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    map_BHW = torch.rand(3, height, width, generator=generator)
    for name in AGGREGATES:
        score_B = image_scores(map_BHW, name)
        assert score_B.shape == (3,)
        assert torch.allclose(image_scores(map_BHW * scale, name), score_B * scale, rtol=1e-4)
        assert bool((score_B <= map_BHW.flatten(1).amax(1) + 1e-6).all())


def test_top_aggregates_lie_between_mean_and_maximum() -> None:
    map_BHW = torch.rand(8, 6, 6)
    values = [image_scores(map_BHW, n) for n in ("mean", "top50", "top25", "top10", "top3", "max")]
    for lower, higher in itertools.pairwise(values):
        assert bool((lower <= higher + 1e-6).all())


def test_unknown_aggregate_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of mean"):
        image_scores(torch.zeros(1, 2, 2), "median")


def test_peak_is_the_centre_of_the_highest_cell() -> None:
    map_BHW = torch.zeros(1, 2, 4)
    map_BHW[0, 1, 3] = 1.0
    peak_x_B, peak_y_B = map_peak(map_BHW)
    assert float(peak_x_B) == pytest.approx(3.5 / 4)
    assert float(peak_y_B) == pytest.approx(1.5 / 2)
