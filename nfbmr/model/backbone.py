"""The frozen source-domain network (SNN), cut at one layer: pictures → features ``y``.

Shapes: B pictures, H, W height and width, C channels of the feature map.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model import weights as weight_files
from nfbmr.model.backbone_settings import BackboneSettings, with_defaults
from nfbmr.model.network import create_network, first_stage, last_feature_layer, normalisation
from nfbmr.model.precision import MIXED
from nfbmr.model.weights import EMBEDDED, PRETRAINED, RANDOM, SMALL_BACKBONE


class _CutReachedError(Exception):
    """Carries the output of the cut layer out of the network; nothing after it is computed."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


class _NeverRunError(Exception):
    """The forward pass ended without the layer."""


def _raise_output(module: nn.Module, inputs: object, output: object) -> None:
    raise _CutReachedError(output)


class Backbone(nn.Module):
    """A frozen network up to one layer, with its preprocessing (eq. 1).

    Use ``create_backbone`` to build one. ``forward`` takes ``uint8`` pictures as they come from
    decoding, so that bytes stay small until they are on the device.

    Attributes:
        settings: the settings with name and layer filled in.
        shape: (C, H, W) of the features.
        weights_hash: SHA-256 over the tensors that the features depend on.
    """

    def __init__(
        self,
        settings: BackboneSettings,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.network = network.eval().requires_grad_(False)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.register_buffer("mean_1C11", torch.tensor(mean).mul(255.0).view(1, -1, 1, 1), False)
        self.register_buffer("std_1C11", torch.tensor(std).mul(255.0).view(1, -1, 1, 1), False)
        self._find_layer(settings.layer).register_forward_hook(_raise_output)
        self.shape, self.used_tensors = self._probe()
        self.weights_hash = ""

    def _find_layer(self, name: str) -> nn.Module:
        try:
            return self.network.get_submodule(name)
        except AttributeError:
            children = [child for child, _ in self.network.named_children()]
            raise ConfigError(
                f"backbone.layer = {name!r} does not exist in {self.settings.name}: its parts are "
                f"{', '.join(children)} (dotted names go deeper, for example blocks.5)."
            ) from None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _probe(self) -> tuple[tuple[int, int, int], list[str]]:
        """Shape of the features and names of the tensors they depend on, without computing.

        Runs a copy on PyTorch's meta device and asks autograd which parameters were reached.
        Buffers count when the module that holds them has a reached parameter or no parameter.
        """
        network = copy.deepcopy(self.network).to("meta").requires_grad_(True)
        size = self.settings.image_size_px
        try:
            output = self._run(network, torch.empty(1, 3, size, size, device="meta"))
            y_BCHW = self._as_map(network, output)
            _require_whole_patches(network, size)
        except _NeverRunError as error:
            raise ConfigError(
                f"backbone.layer = {self.settings.layer!r} is a part of {self.settings.name} that "
                "its forward pass never runs: choose another backbone.layer."
            ) from error
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"backbone.image_size_px = {size} does not fit {self.settings.name}: {error}. "
                "Choose the size the network was made for, or a multiple of its stride or patch."
            ) from error
        if y_BCHW.shape[2] < 1 or y_BCHW.shape[3] < 1:
            raise ConfigError(
                f"backbone.image_size_px = {size} is too small for {self.settings.name} cut at "
                f"{self.settings.layer}: no feature position is left."
            )
        used = _reached_tensors(network, y_BCHW)
        return (y_BCHW.shape[1], y_BCHW.shape[2], y_BCHW.shape[3]), used

    @staticmethod
    def _run(network: nn.Module, x_BCHW: Tensor) -> Tensor:
        try:
            network(x_BCHW)
        except _CutReachedError as cut:
            output = cut.output
            if isinstance(output, (tuple, list)):
                output = output[0]
            return cast(Tensor, output)
        raise _NeverRunError

    @staticmethod
    def _as_map(network: nn.Module, output: Tensor) -> Tensor:
        """Bring a layer's output to (B, C, H, W): token sequences and channels-last maps too."""
        if output.ndim == 4:
            channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
            return output.permute(0, 3, 1, 2) if channels_last else output
        if output.ndim != 3:
            raise ConfigError(
                f"The layer's output has {output.ndim} dimensions; expected a map (B, C, H, W) or "
                "a token sequence (B, N, C): choose another backbone.layer."
            )
        prefix, height, width = _grid_of(network, output.shape[1])
        tokens_BNC = output[:, prefix:]
        return tokens_BNC.transpose(1, 2).reshape(output.shape[0], -1, height, width)

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        """Features of ``uint8`` RGB pictures.

        Args:
            pixels_BHWC: (B, H, W, 3), uint8, of the size in the settings, on the network's device.

        Returns:
            ``y`` (B, C, H, W).
        """
        x_BCHW = pixels_BHWC.permute(0, 3, 1, 2).to(torch.float32)
        x_BCHW = (x_BCHW - self.get_buffer("mean_1C11")) / self.get_buffer("std_1C11")
        return self._as_map(self.network, self._run(self.network, x_BCHW))

    def identity(self) -> dict[str, Any]:
        """Everything that the features of a picture depend on besides the picture."""
        return {
            "name": self.settings.name,
            "layer": self.settings.layer,
            "kwargs": dict(self.settings.kwargs),
            "image_size_px": self.settings.image_size_px,
            "resampling": self.settings.resampling,
            "precision": self.settings.precision,
            "mean": list(self.mean),
            "std": list(self.std),
            "weights_hash": self.weights_hash,
        }

    def key(self) -> str:
        """Sixteen hexadecimal digits that change when ``identity`` does."""
        return identity_key(self.identity())


def identity_key(identity: Mapping[str, Any]) -> str:
    """``Backbone.key()`` of the backbone that has this identity."""
    text = json.dumps(dict(identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _grid_of(network: nn.Module, tokens: int) -> tuple[int, int, int]:
    """How a sequence of tokens is a map: tokens before it, height and width.

    The network's own grid, else a square, behind as many tokens as the network says it has, or as
    usual (a layer may come before the class token is added, and not all networks say).

    Raises:
        ConfigError: the tokens form no map.
    """
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    own = (int(grid[0]), int(grid[1])) if grid is not None else (0, 0)
    for prefix in (int(getattr(network, "num_prefix_tokens", 0)), 0, 1, 2):
        side = math.isqrt(tokens - prefix)
        for height, width in (own, (side, side)):
            if height * width == tokens - prefix:
                return prefix, height, width
    raise ConfigError(
        f"The layer's output is a sequence of {tokens} tokens, which form no map: choose another "
        "backbone.layer."
    )


def _require_whole_patches(network: nn.Module, size: int) -> None:
    """A transformer would silently leave out what is past its last whole patch."""
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    sides = patch_size if isinstance(patch_size, (tuple, list)) else (patch_size or 1,)
    if any(size % int(side) for side in sides):
        raise ValueError(f"its patches are {sides[0]} by {sides[-1]} pixels")


def _reached_tensors(network: nn.Module, y_BCHW: Tensor) -> list[str]:
    """Names of parameters that ``y`` depends on, and of the buffers that lie beside them."""
    names = [name for name, _ in network.named_parameters()]
    parameters = [parameter for _, parameter in network.named_parameters()]
    gradients = torch.autograd.grad(y_BCHW.sum(), parameters, allow_unused=True)
    reached = {
        name for name, gradient in zip(names, gradients, strict=True) if gradient is not None
    }
    owners = {name.rpartition(".")[0] for name in reached}
    stored = set(network.state_dict())
    for name, _ in network.named_buffers():
        if name in stored and name.rpartition(".")[0] in owners:
            reached.add(name)
    return sorted(reached)


def create_backbone(settings: BackboneSettings) -> Backbone:
    """Build the network, load its weights and cut it.

    Raises:
        ConfigError: unknown network, layer or option, an image size that does not fit, or mixed
            precision for a network without stages.
        WeightsError: the weights cannot be found, read, reached or matched.
    """
    from_file = settings.weights not in (PRETRAINED, RANDOM)
    file = weight_files.read_weights(settings.weights) if from_file else None
    resolved = with_defaults(settings, file)
    if settings.weights == EMBEDDED and resolved.name != SMALL_BACKBONE:
        raise WeightsError(
            f"backbone.weights = '{EMBEDDED}' holds {SMALL_BACKBONE}, not {resolved.name}: set "
            f"backbone.weights to '{PRETRAINED}' or to a safetensors file."
        )
    network = create_network(resolved)
    if resolved.precision == MIXED:
        first_stage(resolved.name, network)
    if not resolved.layer:
        layer = last_feature_layer(resolved.name, network)
        resolved = BackboneSettings(**{**asdict(resolved), "layer": layer})
    backbone = Backbone(resolved, network, *normalisation(network, file))
    if file is not None:
        weight_files.load_into(network, file, settings.weights, backbone.used_tensors)
    state = network.state_dict()
    backbone.weights_hash = weight_files.state_hash(state, backbone.used_tensors)
    return backbone
