"""The small backbone: its committed weights are what they say, and training makes such weights."""

from importlib import resources
from pathlib import Path

import torch

from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.weights import read_weights
from nfbmr.train.pretraining import PretrainSettings, pretrain, save_backbone


def test_the_committed_weights_are_small_and_say_how_they_were_made() -> None:
    assets = resources.files("nfbmr.model") / "assets"
    file = read_weights("embedded")
    assert len((assets / "nfbmr_small.safetensors").read_bytes()) <= 6 * 10**6
    assert file.architecture == "nfbmr_small"
    assert "jobs/pretrain.py --seed" in file.metadata["command"]
    assert file.metadata["command"].removesuffix(" FILE") in (assets / "README.md").read_text()


def test_a_short_training_learns_and_its_weights_load(tmp_path: Path) -> None:
    settings = PretrainSettings(
        classes=6, pictures_per_class=12, size_px=64, epochs=4, batch_size=16, seed=1
    )
    said: list[str] = []
    result = pretrain(settings, said.append)
    assert said
    assert result.losses[-1] < result.losses[0]
    path = tmp_path / "small.safetensors"
    save_backbone(result, str(path), "a command", settings.seed)
    backbone = create_backbone(BackboneSettings(weights=str(path), image_size_px=64))
    assert backbone.settings.name == "nfbmr_small"
    pixels_BHWC = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert torch.isfinite(backbone(pixels_BHWC)).all()
