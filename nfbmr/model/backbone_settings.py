"""Which frozen network, with which weights, cut where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nfbmr.errors import ConfigError
from nfbmr.model.network_arguments import argument_problem
from nfbmr.model.precision import BACKBONE_PRECISIONS, FLOAT32
from nfbmr.model.weights import EMBEDDED, PRETRAINED, RANDOM, SMALL_BACKBONE, WeightsFile

MAX_IMAGE_SIZE_PX = 8192
"""Far above what a backbone is given; a typing error would take the memory of every actor."""

RESAMPLINGS = ("bilinear", "bicubic", "box", "lanczos")

DEFAULT_LAYERS = {
    SMALL_BACKBONE: "layer3",
    "tf_efficientnet_b5": "blocks.5",
    "mobilenetv2_100": "blocks.6",
}
"""The layer used for a backbone when the settings name none."""


@dataclass(frozen=True)
class BackboneSettings:
    """Which network, where it is cut, and how pictures are brought to it.

    Attributes:
        name: ``nfbmr_small`` (comes with the package) or any timm model name. Empty: what the
            header of the weights file says, else the file name's first part.
        layer: dotted name of the module whose output is taken. Empty: the default of the network.
            The paper's is ``blocks.5`` of ``tf_efficientnet_b5``.
        weights: ``embedded`` (``nfbmr_small`` only), ``pretrained`` (timm downloads them by the
            model's name), ``random`` (tests), or a path or ``s3://`` URI of a safetensors file.
        image_size_px: pictures are squeezed to this height and width, at most
            ``MAX_IMAGE_SIZE_PX``; the paper uses 768.
        resampling: how they are squeezed; the same in training and scoring.
        precision: of the forward passes, one of ``BACKBONE_PRECISIONS``: ``float32``, ``mixed`` or
            ``bfloat16`` (the last two where the device computes with it); the same in training and
            scoring.
        kwargs: further arguments of ``timm.create_model`` that say what the network is like:
            numbers, texts, booleans and short lists of them, see ``argument_problem``.
    """

    name: str = ""
    layer: str = ""
    weights: str = EMBEDDED
    image_size_px: int = 256
    resampling: str = "bilinear"
    precision: str = FLOAT32
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 8 <= self.image_size_px <= MAX_IMAGE_SIZE_PX:
            raise ConfigError(
                f"backbone.image_size_px = {self.image_size_px}: expected at least 8 and at most "
                f"{MAX_IMAGE_SIZE_PX}; the paper uses 768."
            )
        if self.resampling not in RESAMPLINGS:
            raise ConfigError(
                f"backbone.resampling = {self.resampling!r}: expected one of "
                f"{', '.join(RESAMPLINGS)}."
            )
        if self.precision not in BACKBONE_PRECISIONS:
            raise ConfigError(
                f"backbone.precision = {self.precision!r}: expected one of "
                f"{', '.join(BACKBONE_PRECISIONS)}."
            )
        problem = argument_problem(self.kwargs)
        if problem:
            raise ConfigError(f"backbone.kwargs: {problem}.")


def with_defaults(settings: BackboneSettings, file: WeightsFile | None) -> BackboneSettings:
    """Fill in name, layer and kwargs from the weights file's header and the defaults.

    Raises:
        ConfigError: nothing says which network it is.
    """
    values = asdict(settings)
    if not values["name"] and settings.weights in (PRETRAINED, RANDOM):
        raise ConfigError(
            f"backbone.weights = {settings.weights!r} does not say of which network: set "
            "backbone.name as well, for example to 'tf_efficientnet_b5'."
        )
    if not values["name"]:
        stem = settings.weights.rpartition("/")[2].partition(".")[0]
        values["name"] = (file.architecture if file else None) or stem
    if file is not None and file.architecture == values["name"]:
        values["kwargs"] = {**file.kwargs, **settings.kwargs}
    if not values["layer"]:
        values["layer"] = DEFAULT_LAYERS.get(values["name"], "")
    return BackboneSettings(**values)
