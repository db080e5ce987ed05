"""Backbone weights: from the package, from timm by name, from a file or from an object store.

Only safetensors files are read: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import fsspec
import safetensors.torch
import torch
from torch import Tensor, nn

from nfbmr.errors import STORE_ERRORS, WeightsError, refuse_login
from nfbmr.model.network_arguments import argument_problem
from nfbmr.store_faults import retried

EMBEDDED = "embedded"
PRETRAINED = "pretrained"
RANDOM = "random"
SMALL_BACKBONE = "nfbmr_small"


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file in memory: tensors by name and what its header says of them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what the header says, so that nothing else finds it wrong later.

        Raises:
            ValueError: it says something else than expected.
        """
        problem = argument_problem(self.kwargs)
        if problem:
            raise ValueError(f"kwargs in its header: {problem}")
        for key in ("mean", "std"):
            self.channel_statistics(key)

    @property
    def architecture(self) -> str | None:
        """The timm name of the network that these weights belong to, where the header has it."""
        return self.metadata.get("architecture")

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments for building the network, where the header has them."""
        values: dict[str, Any] = json.loads(self.metadata.get("kwargs", "{}"))
        return values

    def channel_statistics(self, key: str) -> tuple[float, float, float] | None:
        """The ``mean`` or ``std`` that the network expects its input to be normalised with."""
        if key not in self.metadata:
            return None
        text = self.metadata[key]
        try:
            red, green, blue = (float(part) for part in text.split(","))
        except ValueError as error:
            raise ValueError(f"{key} = {text!r} in its header: expected 'r,g,b'") from error
        return red, green, blue


def read_weights_bytes(source: str) -> bytes:
    """The bytes of the embedded weights, or of a file at a path or an ``s3://`` URI.

    A store that is busy is tried again, for as long as ``store_faults.patience`` says.

    Raises:
        WeightsError: the file does not exist or cannot be reached: the cause is what a store said.
        ConfigError: the address has a login in it.
    """
    refuse_login(source)
    if source == EMBEDDED:
        asset = resources.files("nfbmr.model") / "assets" / f"{SMALL_BACKBONE}.safetensors"
        return asset.read_bytes()

    def read() -> bytes:
        with fsspec.open(source, "rb") as file:
            return bytes(file.read())

    try:
        return retried(read)
    except FileNotFoundError as error:
        raise WeightsError(
            f"backbone.weights = {source}: there is no such file. Expected a .safetensors file, an "
            f"s3:// URI of one, '{PRETRAINED}', '{EMBEDDED}' or '{RANDOM}'."
        ) from error
    except STORE_ERRORS as error:
        raise WeightsError(
            f"backbone.weights = {source}: cannot be read ({error}). Check the address, and for "
            "object stores the credentials in the environment."
        ) from error


def parse_weights(data: bytes, source: str) -> WeightsFile:
    """Parse safetensors bytes.

    Raises:
        WeightsError: the bytes are no safetensors file (pickled ``.pth`` and ``.bin`` files are
            refused: loading them can run code).
    """
    try:
        tensors = safetensors.torch.load(data)
        header_length = struct.unpack("<Q", data[:8])[0]
        metadata = json.loads(data[8 : 8 + header_length]).get("__metadata__", {})
        return WeightsFile(tensors, metadata)
    except (safetensors.SafetensorError, struct.error, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{source} is not a readable safetensors file ({error}). Pickled files (.pth, .pt, "
            ".bin) are not loaded because they can run code: convert them with "
            "safetensors.torch.save_file where you trust them."
        ) from error


def read_weights(source: str) -> WeightsFile:
    """Read and parse a weights file; see ``read_weights_bytes`` and ``parse_weights``."""
    return parse_weights(read_weights_bytes(source), source)


def load_into(model: nn.Module, weights: WeightsFile, source: str, used: Iterable[str]) -> None:
    """Load weights into a network, letting timm adapt them (say, position embeddings) first.

    Args:
        model: the network, changed in place.
        weights: what to load; tensors that the network does not have are left out.
        source: where they come from, for messages.
        used: names of the tensors that the features depend on; all must be in the file.

    Raises:
        WeightsError: a tensor that the features depend on is missing or has another shape.
    """
    state = _adapted(model, weights.tensors)
    own_shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong_shape = [
        f"{name} is {tuple(tensor.shape)}, expected {own_shapes[name]}"
        for name, tensor in state.items()
        if name in own_shapes and tuple(tensor.shape) != own_shapes[name]
    ]
    missing = [name for name in used if name not in state]
    if wrong_shape or missing:
        found = [*wrong_shape[:2], *(f"{name} is missing" for name in missing[:2])]
        raise WeightsError(
            f"{source} does not fit the backbone {type(model).__name__}: "
            f"{len(wrong_shape) + len(missing)} tensors differ, for example {'; '.join(found)}. "
            "Name the network these weights belong to in backbone.name, and its options in "
            "backbone.kwargs."
        )
    model.load_state_dict(state, strict=False)


def _adapted(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply the ``checkpoint_filter_fn`` of the timm file that defines the network, if any."""
    module = sys.modules[type(model).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", None)
    state = dict(tensors)
    if adapt is None:
        return state
    takes_model = len(inspect.signature(adapt).parameters) > 1
    adapted: dict[str, Tensor] = adapt(state, model) if takes_model else adapt(state)
    return adapted


def state_hash(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """SHA-256 over the named tensors (name, dtype, shape, bytes), as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
