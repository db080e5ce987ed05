"""A detector: everything that scores the pictures of one category, and its form on disk.

On disk a detector is a folder with ``detector.safetensors`` (the tensors of the heads) and
``detector.json`` (settings, calibration, lineage). Nothing is pickled.

Shapes: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nfbmr import __version__
from nfbmr.errors import ConfigError, DataError, WeightsError
from nfbmr.model.backbone import Backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.calibration import Calibration
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.identity import described_backbone, settings_of_identity
from nfbmr.model.mapper import MapperSettings
from nfbmr.model.scoring import image_scores

FORMAT = 1
TENSORS_FILE = "detector.safetensors"
_MAX_FEATURE_SIZE = 2**16
JSON_FILE = "detector.json"


@dataclass(frozen=True)
class Scores:
    """What a detector says of a batch.

    Attributes:
        score_B: one image score each, float32.
        map_BHW: anomaly maps at feature resolution, float32.
    """

    score_B: Tensor
    map_BHW: Tensor


@dataclass
class Detector:
    """Backbone reference, heads, aggregate and calibration of one category.

    Attributes:
        category: the product type.
        backbone: ``Backbone.identity()`` of the backbone it was fitted on.
        weights: where the backbone's weights were found when it was fitted.
        heads: standardiser, flow and mapper, in evaluation mode.
        aggregate: name of the aggregate from map to image score.
        calibration: scores of held-out normal pictures.
        false_alarm_rate: the rate that ``threshold`` stands for.
        lineage: what it was fitted on and how, for people and the registry.
    """

    category: str
    backbone: dict[str, Any]
    weights: str
    heads: Heads
    aggregate: str
    calibration: Calibration
    false_alarm_rate: float
    lineage: dict[str, Any] = field(default_factory=dict)

    @property
    def threshold(self) -> float:
        """The score above which a picture is anomalous at ``false_alarm_rate``."""
        return self.calibration.threshold(self.false_alarm_rate)

    @torch.inference_mode()
    def score_features(self, y_BCHW: Tensor) -> Scores:
        """Score raw backbone features (B, C, H, W) on the device of the heads."""
        map_BHW = self.heads(y_BCHW)
        return Scores(image_scores(map_BHW, self.aggregate), map_BHW)

    @torch.inference_mode()
    def score_pixels(self, pixels_BHWC: Tensor, backbone: Backbone) -> Scores:
        """Score ``uint8`` pictures (B, H, W, 3) that have the backbone's image size.

        Raises:
            WeightsError: the backbone is not the one the detector was fitted on.
        """
        self.check_backbone(backbone)
        return self.score_features(backbone(pixels_BHWC))

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone whose features are not those the heads were fitted on.

        Raises:
            WeightsError: naming what differs.
        """
        check_identity(backbone, self.backbone, f"The detector of {self.category!r}")

    def backbone_settings(self, weights: str | None = None) -> BackboneSettings:
        """Settings that rebuild the backbone, optionally with the weights from elsewhere."""
        return settings_of_identity(self.backbone, weights or self.weights)

    def save(self, folder: str | Path) -> None:
        """Write the two files into a folder, which is made where it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.heads.state_dict().items()
        }
        safetensors.torch.save_file(state, folder / TENSORS_FILE, {"format": "nfbmr"})
        (folder / JSON_FILE).write_text(json.dumps(self.describe(), indent=2) + "\n")

    def describe(self) -> dict[str, Any]:
        """The content of ``detector.json``."""
        return {
            "format": FORMAT,
            "nfbmr_version": __version__,
            "category": self.category,
            "backbone": _plain(self.backbone),
            "weights": self.weights,
            "feature_shape": list(self.heads.shape),
            "heads": asdict(self.heads.settings),
            "aggregate": self.aggregate,
            "false_alarm_rate": self.false_alarm_rate,
            "calibration_scores": [float(score) for score in self.calibration.scores],
            "lineage": _plain(self.lineage),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Detector:
        """Read what ``save`` wrote.

        Raises:
            WeightsError: a file is missing, damaged, or of a format this version cannot read.
        """
        folder = Path(folder)
        description = _read_description(folder / JSON_FILE)
        backbone, weights = described_backbone(description, str(folder / JSON_FILE))
        try:
            settings = HeadsSettings(
                flow=FlowSettings(**description["heads"]["flow"]),
                mapper=MapperSettings(**description["heads"]["mapper"]),
                standardize=description["heads"]["standardize"],
                precision=description["heads"]["precision"],
            )
            shape = _feature_shape(description["feature_shape"])
            heads = _load_heads(shape, settings, folder / TENSORS_FILE)
            return cls(
                category=description["category"],
                backbone=backbone,
                weights=weights,
                heads=heads.eval().requires_grad_(False),
                aggregate=description["aggregate"],
                calibration=Calibration.from_scores(description["calibration_scores"]),
                false_alarm_rate=description["false_alarm_rate"],
                lineage=description["lineage"],
            )
        except (KeyError, TypeError, ValueError, ConfigError, DataError) as error:
            raise WeightsError(
                f"{folder / JSON_FILE} is damaged ({type(error).__name__}: {error}): fetch the "
                "model version again, or fit the category again."
            ) from error


def check_identity(backbone: Backbone, expected: Mapping[str, Any], who: str) -> None:
    """Refuse a backbone whose features are not those that heads were fitted on.

    Args:
        backbone: what there is.
        expected: ``Backbone.identity()`` at fitting.
        who: begins the message.

    Raises:
        WeightsError: naming what differs.
    """
    identity = backbone.identity()
    different = [k for k, v in expected.items() if _plain(identity.get(k)) != _plain(v)]
    if different:
        name = different[0]
        raise WeightsError(
            f"{who} was fitted on another backbone: {name} is {identity.get(name)!r}, expected "
            f"{expected[name]!r}. Set the weights to the file it was fitted with, or fit the "
            "category again."
        )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise WeightsError(
            f"There is no detector at {path.parent}: expected {JSON_FILE} and {TENSORS_FILE}."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not readable JSON ({error}): fetch it again.") from error
    _check_format(description, str(path))
    return description


def described_shape(description: Any, who: str) -> tuple[int, int, int]:
    """(C, H, W) of the features of a detector of which only ``detector.json`` was read.

    Args:
        description: its content.
        who: begins a message.

    Raises:
        WeightsError: this version cannot read a detector of this format, or the shape is none.
    """
    _check_format(description, who)
    try:
        return _feature_shape(description["feature_shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{who} is damaged ({type(error).__name__}: {error}): fetch the model version again, "
            "or fit the category again."
        ) from error


def _check_format(description: Any, who: str) -> None:
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        wrote = description.get("nfbmr_version") if isinstance(description, dict) else None
        raise WeightsError(
            f"{who} has detector format {found!r}, but nfbmr {__version__} reads format {FORMAT}: "
            f"use nfbmr {wrote or 'of a matching version'}, or fit the category again."
        )


def _feature_shape(values: Sequence[Any]) -> tuple[int, int, int]:
    channels, height, width = values
    for size in (channels, height, width):
        if type(size) is not int or not 1 <= size <= _MAX_FEATURE_SIZE:
            raise ValueError(f"feature_shape {values} is no shape of features")
    return channels, height, width


def _load_heads(shape: tuple[int, int, int], settings: HeadsSettings, path: Path) -> Heads:
    """Heads with the tensors of a file.

    They are first built without memory: a damaged description may ask for more than there is,
    where what the file holds is bounded by its size.
    """
    try:
        tensors = safetensors.torch.load_file(path)
        with torch.device("meta"):
            described = Heads(shape, settings).state_dict()
        wanted = {name: tuple(tensor.shape) for name, tensor in described.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        different = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        if different:
            name = different[0]
            raise ValueError(
                f"{name} has shape {found.get(name)} in the file, {wanted.get(name)} by {JSON_FILE}"
            )
        heads = Heads(shape, settings)
        heads.load_state_dict(tensors)
    except (OSError, ValueError, safetensors.SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"{path} cannot be loaded into the heads that {JSON_FILE} describes ({error}): fetch "
            "the model version again."
        ) from error
    return heads


def _plain(value: Any) -> Any:
    """The value as JSON gives it back (tuples become lists)."""
    return json.loads(json.dumps(value))
