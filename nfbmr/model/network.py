"""The networks that a backbone is cut from: timm's, and the small embedded one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.small_backbone import create_small_backbone
from nfbmr.model.weights import PRETRAINED, SMALL_BACKBONE, WeightsFile

MAX_PARAMETERS = 2_000_000_000
"""8 GB in float32. All but three of timm's networks are smaller."""


def create_network(settings: BackboneSettings) -> nn.Module:
    """The whole network, with timm's pretrained weights where they are asked for.

    Raises:
        ConfigError: the name or an option is unknown, or the network is too large.
        WeightsError: the weights could not be downloaded.
    """
    if settings.name == SMALL_BACKBONE:
        return create_small_backbone()
    # Seconds to import, and workers that only fit heads on cached features never need it.
    import timm

    if not timm.is_model(settings.name):
        nearest = timm.list_models(f"*{settings.name}*")[:5] or timm.list_models("*efficientnet_b*")
        raise ConfigError(
            f"backbone.name = {settings.name!r} is not a model that timm {timm.__version__} knows. "
            f"Near it: {', '.join(nearest[:5])}. `timm.list_models()` lists all."
        )
    return _built(settings, _fitting_arguments(settings))


def _fitting_arguments(settings: BackboneSettings) -> Mapping[str, Any]:
    """The arguments that the network can be built with, the size of pictures among them."""
    if not _wants_its_size(settings):
        _require_buildable(settings, settings.kwargs)
        return settings.kwargs
    sized = {"img_size": settings.image_size_px, **settings.kwargs}
    try:
        _require_buildable(settings, sized)
    except ConfigError:  # Hybrids that are called transformers, but take any size.
        _require_buildable(settings, settings.kwargs)
        return settings.kwargs
    return sized


def _wants_its_size(settings: BackboneSettings) -> bool:
    """Whether a network is made for one size of pictures, as most transformers are."""
    return any(kind in settings.name for kind in ("vit", "deit", "eva"))


def _require_buildable(settings: BackboneSettings, arguments: Mapping[str, Any]) -> None:
    """Build the network without memory first: arguments may ask for more than there is.

    Raises:
        ConfigError: timm cannot build it, or it is larger than ``MAX_PARAMETERS``.
    """
    import timm

    try:
        with torch.device("meta"):
            network = timm.create_model(settings.name, num_classes=0, **arguments)
    except Exception as error:  # networks raise what they like for what they do not take
        raise _unfit(settings, arguments, error) from error
    size = sum(tensor.numel() for tensor in network.state_dict().values())
    if size > MAX_PARAMETERS:
        raise ConfigError(
            f"{settings.name} with backbone.kwargs = {dict(arguments)} has {size:,} parameters: "
            f"expected at most {MAX_PARAMETERS:,}. Choose a smaller backbone."
        )


def _built(settings: BackboneSettings, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    is_pretrained = settings.weights == PRETRAINED
    try:
        network: nn.Module = timm.create_model(
            settings.name, pretrained=is_pretrained, num_classes=0, **arguments
        )
        return network
    except Exception as error:  # a hub's client has exceptions of its own for proxies and resets
        if not is_pretrained:
            raise _unfit(settings, arguments, error) from error
        raise WeightsError(
            f"The pretrained weights of {settings.name} could not be downloaded "
            f"({type(error).__name__}). Without a network, give a safetensors file: set "
            "backbone.weights to its path or s3:// URI."
        ) from error


def _unfit(
    settings: BackboneSettings, arguments: Mapping[str, Any], error: Exception
) -> ConfigError:
    return ConfigError(
        f"backbone.kwargs = {dict(arguments)} do not fit {settings.name} "
        f"({type(error).__name__}: {error!s:.200}): give what timm's {settings.name} takes."
    )


def normalisation(
    network: nn.Module, file: WeightsFile | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation: the weights file's, else timm's for this model, else 0.5."""
    config = getattr(network, "pretrained_cfg", None) or {}
    half = (0.5, 0.5, 0.5)
    mean = (file and file.channel_statistics("mean")) or config.get("mean") or half
    std = (file and file.channel_statistics("std")) or config.get("std") or half
    return tuple(mean), tuple(std)


def last_feature_layer(name: str, network: nn.Module) -> str:
    """The layer before the last reduction, as the paper's choice for EfficientNet-b5 is.

    Raises:
        ConfigError: the network does not say what its layers are.
    """
    stages = _stages(network)
    if not stages:
        raise ConfigError(
            f"backbone.layer is not set and {name} does not say what its layers are: set it, for "
            "example backbone.layer = 'blocks.5'."
        )
    return stages[-1]


def first_stage(name: str, network: nn.Module) -> str:
    """The module at whose end the first of the network's stages ends; ``mixed`` precision asks.

    Raises:
        ConfigError: the network does not say what its stages are.
    """
    parts = dict(network.named_modules())
    known = [stage for stage in _stages(network) if stage and stage in parts]
    if not known:
        raise ConfigError(
            f"{name} does not say what its stages are, so where mixed precision changes from "
            "float32 is unknown: set backbone.precision (in scoring run.forward) to 'float32' or "
            "'bfloat16'."
        )
    return known[0]


def _stages(network: nn.Module) -> list[str]:
    """Dotted names of the modules that end a stage, in order; none where the network has none."""
    info = getattr(network, "feature_info", None)
    return [str(stage["module"]) for stage in info] if isinstance(info, list) else []
