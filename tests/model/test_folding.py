"""A folded backbone is the same function with fewer layers."""

import pytest
import torch
from torch import nn

from nfbmr.model.backbone import Backbone, create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.folding import folded


def with_lively_norms(name: str, layer: str, size: int) -> Backbone:
    """A network whose batch norms do something, as they do after training."""
    torch.manual_seed(0)
    settings = BackboneSettings(name=name, layer=layer, weights="random", image_size_px=size)
    backbone = create_backbone(settings)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.7, 1.4)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return backbone


def norms(backbone: Backbone) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


@pytest.mark.parametrize(
    ("name", "layer"),
    [("mobilenetv2_100", "blocks.6"), ("resnet18", "layer3"), ("nfbmr_small", "")],
)
def test_features_stay_and_normalisations_go(name: str, layer: str) -> None:
    backbone = with_lively_norms(name, layer, 64)
    thin = folded(backbone)
    assert norms(thin) < norms(backbone) / 2
    pixels_BHWC = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        y_BCHW = backbone(pixels_BHWC)
        error = (thin(pixels_BHWC) - y_BCHW).abs().max() / y_BCHW.abs().max()
    assert error < 1e-4
    assert thin.identity() == backbone.identity()


def test_a_network_without_normalisations_comes_back_as_it_is() -> None:
    backbone = with_lively_norms("vit_tiny_patch16_224", "blocks.1", 64)
    assert folded(backbone) is backbone


def test_a_wrong_guess_is_noticed() -> None:
    """Where the order of the children is not the order of computation, nothing is folded."""
    backbone = with_lively_norms("resnet18", "layer1", 64)
    block = backbone.network.layer1[0]  # type: ignore[index, union-attr]
    first, second = block.bn1, block.bn2
    block.bn1, block.bn2 = second, first
    swapped = nn.Sequential(block.conv1, block.bn2)
    backbone.network.add_module("decoy", swapped)
    conv, wrong = block.conv1, block.bn2
    pixels_BHWC = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        y_BCHW = backbone(pixels_BHWC)
        assert torch.equal(backbone(pixels_BHWC), y_BCHW)
        error = (folded(backbone)(pixels_BHWC) - y_BCHW).abs().max() / y_BCHW.abs().max()
    assert error < 1e-3
    assert conv.out_channels == wrong.num_features
