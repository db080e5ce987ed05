"""Standardisation guards itself; the maps of the ablation are parts of one mean."""

import pytest
import torch

from nfbmr.errors import FitError
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import EQ14, FLOW_ONLY, Heads, HeadsSettings, Standardizer
from nfbmr.model.mapper import MapperSettings


def small_heads(kind: str = "bmr", precision: str = "float32", channels: int = 6) -> Heads:
    torch.manual_seed(0)
    settings = HeadsSettings(
        FlowSettings(hidden_channels=16),
        MapperSettings(kind=kind, latent_channels=8, block_channels=4),
        precision=precision,
    )
    heads = Heads((channels, 4, 5), settings)
    for parameter in heads.parameters():
        if parameter.is_floating_point():
            torch.nn.init.normal_(parameter, std=0.2)
    return heads.eval()


def test_live_channels_come_out_centred_and_of_like_size() -> None:
    scale_1C11 = torch.tensor([0.5, 1.0, 2.0]).view(1, -1, 1, 1)
    y_BCHW = torch.randn(400, 3, 4, 4) * scale_1C11 + torch.tensor([3.0, -70.0, 0.0]).view(
        1, 3, 1, 1
    )
    standardizer = Standardizer(3)
    standardizer.fit(y_BCHW)
    standard_BCHW = standardizer(y_BCHW)
    assert standard_BCHW.mean((0, 2, 3)).abs().max() < 1e-4
    std_C = standard_BCHW.std((0, 2, 3))
    assert ((std_C > 0.8) & (std_C <= 1.0)).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -1e4])
def test_a_dead_channel_becomes_zero_not_nan(value: float) -> None:
    y_BCHW = torch.randn(50, 4, 3, 3)
    y_BCHW[:, 2] = value
    standardizer = Standardizer(4)
    standardizer.fit(y_BCHW)
    new_BCHW = torch.randn(5, 4, 3, 3)
    assert (standardizer(new_BCHW)[:, 2] == 0).all()
    assert torch.isfinite(standardizer(new_BCHW)).all()


def test_all_channels_dead_is_finite_too() -> None:
    standardizer = Standardizer(2)
    standardizer.fit(torch.ones(10, 2, 3, 3))
    assert (standardizer(torch.randn(2, 2, 3, 3)) == 0).all()


def test_statistics_do_not_depend_on_how_pictures_are_chunked() -> None:
    y_BCHW = torch.randn(70, 3, 4, 4).half()
    one, other = Standardizer(3), Standardizer(3)
    one.fit(y_BCHW, chunk_size=1)
    other.fit(y_BCHW, chunk_size=1000)
    assert (one.scale_1C11 - other.scale_1C11).abs().max() < 1e-6


def test_features_that_are_not_finite_name_the_channel() -> None:
    y_BCHW = torch.randn(10, 5, 2, 2)
    y_BCHW[3, 4, 0, 0] = float("inf")
    with pytest.raises(FitError, match=r"not finite in 1 channels \(first: \[4\]\)"):
        Standardizer(5).fit(y_BCHW)


@pytest.mark.parametrize("kind", ["bmr", "b-pfm"])
def test_equation_14_is_the_mean_of_its_halves(kind: str) -> None:
    heads = small_heads(kind)
    y_BCHW = torch.randn(3, 6, 4, 5)
    with torch.inference_mode():
        maps = heads.all_maps(y_BCHW)
        assert (maps[EQ14] - (maps["source"] + maps["target"]) / 2).abs().max() < 1e-5
        assert torch.equal(heads(y_BCHW), maps[heads.default_map])
    assert heads.default_map == EQ14
    assert all(map_BHW.shape == (3, 4, 5) for map_BHW in maps.values())


def test_flow_only_has_no_mapper_and_one_map() -> None:
    heads = small_heads("none")
    y_BCHW = torch.randn(3, 6, 4, 5)
    with torch.inference_mode():
        assert list(heads.all_maps(y_BCHW)) == [FLOW_ONLY]
        assert torch.equal(heads(y_BCHW), heads.all_maps(y_BCHW)[FLOW_ONLY])
    assert not any("mapper" in name for name in heads.state_dict())


def test_bfloat16_changes_maps_by_rounding_only() -> None:
    exact, rounded = small_heads(), small_heads(precision="bfloat16")
    y_BCHW = torch.randn(8, 6, 4, 5)
    with torch.inference_mode():
        map_BHW, rounded_BHW = exact(y_BCHW), rounded(y_BCHW)
    assert rounded_BHW.dtype == torch.float32
    assert ((rounded_BHW - map_BHW).abs() / map_BHW.abs().clamp_min(0.1)).max() < 0.15
