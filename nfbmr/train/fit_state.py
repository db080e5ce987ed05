"""Where a fit stands after an epoch, as one safetensors file with JSON in its header."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_FORMAT = "2"
_DIGEST_BYTES = 16


@dataclass
class StageState:
    """Everything that the next epoch depends on.

    Attributes:
        stage: ``flow`` or ``mapper``.
        epoch: finished epochs of this stage.
        step: finished steps of this stage.
        heads: tensors of standardiser, flow and mapper.
        optimizer: its ``state_dict()``.
        scheduler: its ``state_dict()``, or None.
        generator: state of the generator that orders the pictures.
        best: weights of the stage's best epoch, where it may end early.
        best_loss: of that epoch.
        epochs_since_best: epochs after it.
        notes: plain values that whoever keeps the state adds.
    """

    stage: str
    epoch: int
    step: int
    heads: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    generator: Tensor
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    epochs_since_best: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """A digest, then a safetensors file; what is no tensor stands as JSON in its header."""
        tensors = {f"heads.{name}": tensor for name, tensor in self.heads.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors["generator"] = self.generator
        for parameter, values in self.optimizer["state"].items():
            tensors |= {f"optimizer.{parameter}.{name}": t for name, t in values.items()}
        plain = {
            "format": _FORMAT,
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "param_groups": self.optimizer["param_groups"],
            "scheduler": self.scheduler,
            "best_loss": self.best_loss,
            "epochs_since_best": self.epochs_since_best,
            "notes": self.notes,
        }
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        # One entry: safetensors writes several in any order, and equal states are equal bytes.
        data = safetensors.torch.save(on_cpu, {"state": json.dumps(plain)})
        return _digest(data) + data

    @classmethod
    def from_bytes(cls, data: bytes) -> StageState | None:
        """What ``to_bytes`` wrote; None where it is damaged or of another format."""
        digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if digest != _digest(data):
            return None
        try:
            tensors = safetensors.torch.load(data)
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])["__metadata__"]
            plain = json.loads(header["state"])
            if plain["format"] != _FORMAT:
                return None
            optimizer_state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _below("optimizer", tensors).items():
                parameter, _, value = name.partition(".")
                optimizer_state.setdefault(int(parameter), {})[value] = tensor
            return cls(
                stage=plain["stage"],
                epoch=plain["epoch"],
                step=plain["step"],
                heads=_below("heads", tensors),
                optimizer={"state": optimizer_state, "param_groups": plain["param_groups"]},
                scheduler=plain["scheduler"],
                generator=tensors["generator"].to(torch.uint8),
                best=_below("best", tensors),
                best_loss=plain["best_loss"],
                epochs_since_best=plain["epochs_since_best"],
                notes=plain["notes"],
            )
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError):
            return None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
