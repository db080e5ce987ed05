"""Any timm network, cut anywhere, becomes a map of features; what does not fit says so."""

from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model.backbone import Backbone, create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.weights import state_hash


def pixels(size: int, seed: int = 0, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def random_backbone(name: str, size: int, layer: str = "", **kwargs: object) -> Backbone:
    torch.manual_seed(0)
    settings = BackboneSettings(
        name=name, layer=layer, weights="random", image_size_px=size, kwargs=kwargs
    )
    return create_backbone(settings)


def test_the_papers_backbone_at_the_papers_size() -> None:
    backbone = random_backbone("tf_efficientnet_b5", 768)
    assert backbone.settings.layer == "blocks.5"
    assert backbone.shape == (304, 24, 24)
    blocks = sum(len(stage) for stage in backbone.network.blocks[:6])  # type: ignore[union-attr]
    assert blocks == 36
    with torch.inference_mode():
        y_BCHW = backbone(pixels(768, count=1))
    assert y_BCHW.shape == (1, 304, 24, 24)
    assert torch.isfinite(y_BCHW).all()


@pytest.mark.parametrize(
    ("name", "size", "layer", "shape"),
    [
        ("mobilenetv2_100", 384, "blocks.6", (320, 12, 12)),
        ("mobilenetv2_100", 96, "", (320, 3, 3)),
        ("vit_tiny_patch16_224", 128, "blocks.5", (192, 8, 8)),
        ("swin_tiny_patch4_window7_224", 224, "layers.2", (384, 14, 14)),
        ("resnet18", 64, "layer3", (256, 4, 4)),
        ("nfbmr_small", 64, "", None),
    ],
)
def test_convolutional_networks_and_transformers_give_maps(
    name: str, size: int, layer: str, shape: tuple[int, int, int] | None
) -> None:
    backbone = random_backbone(name, size, layer)
    assert shape is None or backbone.shape == shape
    with torch.inference_mode():
        assert backbone(pixels(size)).shape == (2, *backbone.shape)


def test_features_are_those_of_timms_own_forward_pass() -> None:
    backbone = random_backbone("mobilenetv2_100", 96, "blocks.6")
    reference = timm.create_model("mobilenetv2_100", num_classes=0).eval()
    reference.load_state_dict(backbone.network.state_dict())
    seen = []
    reference.blocks[6].register_forward_hook(lambda module, x, y: seen.append(y))
    image_BHWC = pixels(96)
    mean, std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
    with torch.inference_mode():
        reference(((image_BHWC / 255 - mean) / std).permute(0, 3, 1, 2))
        assert (backbone(image_BHWC) - seen[0]).abs().max() < 1e-4


def test_a_vits_tokens_come_back_to_their_places() -> None:
    """What changes in the top left of a picture changes the top left of the map the most."""
    backbone = random_backbone("vit_tiny_patch16_224", 64, "blocks.0")
    one_BHWC = pixels(64, count=1)
    other_BHWC = one_BHWC.clone()
    other_BHWC[:, :16, 16:32] = 255 - other_BHWC[:, :16, 16:32]
    with torch.inference_mode():
        change_HW = (backbone(one_BHWC) - backbone(other_BHWC)).square().sum(1)[0]
    assert int(change_HW.argmax()) == 1


def test_nothing_after_the_cut_is_computed() -> None:
    backbone = random_backbone("resnet18", 64, "layer2")
    for module in (backbone.network.layer3, backbone.network.layer4):
        module.register_forward_pre_hook(lambda *_: pytest.fail("ran past the cut"))  # type: ignore[union-attr]
    backbone(pixels(64))


def test_the_key_follows_what_features_depend_on_and_nothing_else() -> None:
    one = random_backbone("resnet18", 64, "layer2")
    again = random_backbone("resnet18", 64, "layer2")
    assert one.key() == again.key()
    for name, same in (("layer4", True), ("layer1", False)):
        weight = again.network.get_parameter(f"{name}.0.conv1.weight")
        with torch.no_grad():
            weight.add_(1)
        found = state_hash(again.network.state_dict(), again.used_tensors)
        assert (found == one.weights_hash) == same
    assert random_backbone("resnet18", 96, "layer2").key() != one.key()
    assert random_backbone("resnet18", 64, "layer3").key() != one.key()
    torch.manual_seed(1)
    settings = BackboneSettings(name="resnet18", layer="layer2", weights="random", image_size_px=64)
    assert create_backbone(settings).key() != one.key()


def test_the_backbone_is_frozen() -> None:
    backbone = random_backbone("resnet18", 64, "layer2")
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.network.training


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "mobilnetv2_100"}, ["mobilnetv2_100", "timm"]),
        ({"name": "efficientnet_b9"}, ["efficientnet_b9", "not a model"]),
        ({"name": "resnet18", "layer": "blocks.5"}, ["blocks.5", "layer1"]),
        ({"name": "resnet18", "kwargs": {"colour": 3}}, ["colour", "resnet18"]),
        ({"name": "resnet18", "kwargs": {"act_layer": "nope"}}, ["KeyError", "nope", "resnet18"]),
        (
            {"name": "vit_tiny_patch16_224", "kwargs": {"embed_dim": 65535, "num_heads": 1}},
            ["parameters", "vit_tiny_patch16_224", "at most 2,000,000,000"],
        ),
        ({"name": "vit_tiny_patch16_224", "image_size_px": 100}, ["image_size_px = 100"]),
        ({"name": "swin_tiny_patch4_window7_224", "image_size_px": 100}, ["image_size_px = 100"]),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, object], words: list[str]) -> None:
    values = {"weights": "random", "image_size_px": 64} | settings
    with pytest.raises(ConfigError) as caught:
        create_backbone(BackboneSettings(**values))  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size_px", 4),
        ("image_size_px", 8193),
        ("resampling", "magic"),
        ("precision", "float8"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"backbone.{name} = "):
        BackboneSettings(**{name: value})  # type: ignore[arg-type]


def test_weights_by_timms_name_come_through_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own loading of pretrained weights, from a file in the hub's place."""
    network = timm.create_model("resnet18", pretrained=False)
    file = tmp_path / "hub.safetensors"
    safetensors.torch.save_file(network.state_dict(), file)
    from_file = partial(timm.create_model, pretrained_cfg_overlay={"file": str(file)})
    monkeypatch.setattr("timm.create_model", from_file)
    settings = BackboneSettings(
        name="resnet18", layer="layer2", weights="pretrained", image_size_px=64
    )
    backbone = create_backbone(settings)
    assert torch.equal(backbone.network.get_parameter("conv1.weight"), network.conv1.weight)
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    assert backbone.std == pytest.approx((0.229, 0.224, 0.225))


def test_without_the_hub_the_error_says_which_setting_takes_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"backbone\.weights") as caught:
        create_backbone(BackboneSettings(name="mobilenetv2_100", weights="pretrained"))
    assert "s3://" in str(caught.value)


def test_a_hub_behind_a_proxy_that_denies_is_the_same_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a hub's client raises then is no OSError."""

    create_model = timm.create_model

    def denied(name: str, pretrained: bool = False, **others: object) -> object:
        if pretrained:
            raise ProxyError("403 Forbidden")
        return create_model(name, **others)

    monkeypatch.setattr("timm.create_model", denied)
    with pytest.raises(WeightsError, match=r"\(ProxyError\).*backbone\.weights"):
        create_backbone(BackboneSettings(name="mobilenetv2_100", weights="pretrained"))


class ProxyError(Exception):
    """As HTTP clients call it."""


def test_the_embedded_weights_belong_to_the_small_network_alone() -> None:
    with pytest.raises(WeightsError, match="nfbmr_small"):
        create_backbone(BackboneSettings(name="resnet18", weights="embedded"))
    assert create_backbone(BackboneSettings()).settings.name == "nfbmr_small"


def test_real_weights_name_their_network(real_weights: str) -> None:
    backbone = create_backbone(BackboneSettings(weights=real_weights, image_size_px=384))
    assert backbone.settings.name == "mobilenetv2_100"
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert backbone.shape == (320, 12, 12)


@pytest.mark.parametrize(
    ("name", "layer", "size", "shape"),
    [
        ("efficientvit_b0", "", 256, (128, 8, 8)),
        ("levit_128s", "stages.1", 224, (256, 7, 7)),
        ("xcit_nano_12_p16_224", "blocks.5", 224, (128, 14, 14)),
        ("coat_tiny", "", 224, None),
    ],
)
def test_hybrids_of_transformers_are_backbones_or_say_what_to_choose(
    name: str, layer: str, size: int, shape: tuple[int, int, int] | None
) -> None:
    settings = BackboneSettings(name=name, layer=layer, weights="random", image_size_px=size)
    if shape is None:
        with pytest.raises(ConfigError, match=r"choose another backbone\.layer"):
            create_backbone(settings)
        return
    backbone = create_backbone(settings)
    assert backbone.shape == shape
    assert backbone(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape == (1, *shape)
