"""In which floating-point format convolutions are computed, and how much is done to be fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
MIXED = "mixed"
PRECISIONS = (FLOAT32, BFLOAT16)
"""Of the heads."""
BACKBONE_PRECISIONS = (FLOAT32, MIXED, BFLOAT16)
"""``mixed`` is float32 up to the end of the network's first stage and bfloat16 after it.

Pictures of one product hardly differ in contrast, and what they differ in is small beside what all
have in common: eight bits of it are lost in the first convolutions, and hardly any after them. The
README has figures."""

AUTOMATIC = "auto"
REFERENCE = "reference"
COMPILED = "compiled"
FORWARD_MODES = (AUTOMATIC, REFERENCE, COMPILED, *BACKBONE_PRECISIONS)
"""How a backbone's forward passes are run:

- ``auto``: in the precision that the detector was calibrated with, batch norms folded,
  channels last;
- ``reference``: the network as it was published, in float32; slow;
- ``compiled``: as ``auto``, and compiled by PyTorch's inductor; half a minute at an actor's start;
- ``float32``, ``mixed``, ``bfloat16``: as ``auto``, whatever the detector was calibrated with.
"""


def forward_precision(mode: str, calibrated: str) -> str:
    """The precision of a forward mode, given the one that the detector was calibrated with."""
    if mode in BACKBONE_PRECISIONS:
        return mode
    return FLOAT32 if mode == REFERENCE else calibrated


def used_precision(precision: str, device: torch.device) -> str:
    """What a network of this precision really computes with on this device.

    ``bfloat16`` is used where the device computes with it; on hardware that would only imitate it,
    float32 is.
    """
    return precision if _computes_bfloat16(device) else FLOAT32


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """The context in which a network of this precision runs on this device.

    Args:
        precision: one of ``BACKBONE_PRECISIONS``; ``mixed`` asks for a network that went through
            ``start_in_float32``.
        device: where the network's tensors lie.
    """
    enabled = used_precision(precision, device) != FLOAT32
    with exact_convolutions(device), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def start_in_float32(network: nn.Module, last: str, device: torch.device) -> None:
    """In ``autocast``, let a network compute in float32 until one of its modules is done.

    Args:
        network: on its device; changed in place.
        last: dotted name of the last module that computes in float32.
        device: where the network's tensors lie.
    """

    # Only the state is set here: the context that ``autocast`` made puts it back, also where the
    # forward pass ends before ``last`` does.
    def begin(module: nn.Module, inputs: object) -> None:
        torch.set_autocast_enabled(device.type, False)

    def end(module: nn.Module, inputs: object, output: object) -> None:
        torch.set_autocast_enabled(device.type, True)

    network.register_forward_pre_hook(begin)
    network.get_submodule(last).register_forward_hook(end, prepend=True)


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """In here float32 convolutions are computed in float32, on a GPU as on a CPU.

    PyTorch lets cuDNN round their factors to 10 bits (TF32) unless told otherwise, which neither
    the flow's inverse nor a comparison with "plain float32" bears. The setting is the process's:
    it is put back at the end.

    Args:
        device: where the tensors lie; nothing changes for a CPU.
    """
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made at run time
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    # Arm's name for the instructions is plain "bf16".
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
