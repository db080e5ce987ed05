"""A detector is data: two files that give back the same scores, or an error that says why."""

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nfbmr.errors import WeightsError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.identity import described_backbone
from nfbmr.model.mapper import MapperSettings

SETTINGS = BackboneSettings(image_size_px=64)


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    backbone = create_backbone(SETTINGS)
    settings = HeadsSettings(
        FlowSettings(hidden_channels=16), MapperSettings(latent_channels=8, block_channels=4)
    )
    heads = Heads(backbone.shape, settings)
    heads.standardizer.fit(torch.randn(20, *backbone.shape))
    return Detector(
        category="bottle",
        backbone=backbone.identity(),
        weights="embedded",
        heads=heads.eval().requires_grad_(False),
        aggregate="top10",
        calibration=Calibration.from_scores([0.5, 1.0, 1.5, 2.0]),
        false_alarm_rate=0.25,
        lineage={"pictures_fitted": 16},
    )


def test_what_is_loaded_scores_the_same(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "saved")
    loaded = Detector.load(tmp_path / "saved")
    pixels_BHWC = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    backbone = create_backbone(loaded.backbone_settings())
    before = detector.score_pixels(pixels_BHWC, backbone)
    after = loaded.score_pixels(pixels_BHWC, backbone)
    assert torch.equal(before.score_B, after.score_B)
    assert torch.equal(before.map_BHW, after.map_BHW)
    assert loaded.describe() == detector.describe()
    assert loaded.threshold == detector.threshold
    assert not any(parameter.requires_grad for parameter in loaded.heads.parameters())


def test_two_files_and_no_pickle(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {TENSORS_FILE, JSON_FILE}
    json.loads((tmp_path / JSON_FILE).read_text())
    safetensors.torch.load_file(tmp_path / TENSORS_FILE)


def test_another_backbone_is_refused_by_what_differs(detector: Detector) -> None:
    other = create_backbone(BackboneSettings(image_size_px=96))
    with pytest.raises(WeightsError, match="image_size_px is 96, expected 64"):
        detector.check_backbone(other)


def damage_json(folder: Path, **changes: object) -> None:
    path = folder / JSON_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_unknown_format_says_which_version_can_read_it(
    detector: Detector, tmp_path: Path
) -> None:
    detector.save(tmp_path)
    damage_json(tmp_path, format=99, nfbmr_version="7.1")
    with pytest.raises(WeightsError, match=r"detector format 99.*use nfbmr 7\.1"):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("heads", None),
        ("feature_shape", [3]),
        ("feature_shape", [3, 4, 4]),
        ("calibration_scores", []),
        ("calibration_scores", "many"),
        ("category", ...),
        ("backbone", ...),
        ("backbone", []),
        ("weights", 5),
    ],
)
def test_damage_is_an_error_with_the_file(
    detector: Detector, tmp_path: Path, name: str, value: object
) -> None:
    detector.save(tmp_path)
    description = json.loads((tmp_path / JSON_FILE).read_text())
    if value is ...:
        del description[name]
    else:
        description[name] = value
    (tmp_path / JSON_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("layer", ..., r"backbone\.layer is missing, expected a text"),
        ("name", 5, r"backbone\.name = 5, expected a text"),
        ("kwargs", [], r"backbone\.kwargs = \[\], expected an object"),
        ("kwargs", {"checkpoint_path": "/x/y.pth"}, "'checkpoint_path' is not taken"),
        ("kwargs", {"layers": 10**9}, "layers = 1000000000: expected a number"),
        ("image_size_px", "64", r"image_size_px = '64', expected a whole number"),
        ("image_size_px", 10**6, r"image_size_px = 1000000: expected at least 8 and at most 8192"),
        ("resampling", "magic", r"resampling = 'magic'"),
        ("mean", [0.5, float("nan"), 0.5], "expected three finite numbers"),
        ("std", [0.5, 0.0, 0.5], "expected three numbers above 0"),
        ("weights_hash", None, "weights_hash = None"),
    ],
)
def test_a_backbone_that_nobody_could_build_is_said_with_file_key_and_value(
    detector: Detector, tmp_path: Path, key: str, value: object, words: str
) -> None:
    """By loading as by planning, which reads the description alone."""
    detector.save(tmp_path)
    description = json.loads((tmp_path / JSON_FILE).read_text())
    assert described_backbone(description, "it") == (detector.backbone, "embedded")
    description["backbone"] |= {key: value}
    if value is ...:
        del description["backbone"][key]
    (tmp_path / JSON_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=f"{JSON_FILE} is damaged: .*{words}.*fit the category"):
        Detector.load(tmp_path)
    with pytest.raises(WeightsError, match=f"^it is damaged: .*{words}"):
        described_backbone(description, "it")


@pytest.mark.parametrize("content", [b"", b"[1", b"[1]", b"\xff\xfe"])
def test_unreadable_json_is_an_error(detector: Detector, tmp_path: Path, content: bytes) -> None:
    detector.save(tmp_path)
    (tmp_path / JSON_FILE).write_bytes(content)
    with pytest.raises(WeightsError, match=JSON_FILE):
        Detector.load(tmp_path)


def test_missing_truncated_and_pickled_tensors_are_errors(
    detector: Detector, tmp_path: Path
) -> None:
    detector.save(tmp_path)
    tensors = tmp_path / TENSORS_FILE
    data = tensors.read_bytes()
    for content in (data[: len(data) // 2], pickle.dumps({"weight": 1}), b""):
        tensors.write_bytes(content)
        with pytest.raises(WeightsError, match=TENSORS_FILE):
            Detector.load(tmp_path)
    tensors.unlink()
    with pytest.raises(WeightsError, match=TENSORS_FILE):
        Detector.load(tmp_path)
    with pytest.raises(WeightsError, match="no detector at"):
        Detector.load(tmp_path / "nowhere")
