"""In which floating-point format convolutions are computed, and how much is done to be fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)

AUTOMATIC = "auto"
REFERENCE = "reference"
COMPILED = "compiled"
FORWARD_MODES = (AUTOMATIC, REFERENCE, COMPILED, *PRECISIONS)
"""How a backbone's forward passes are run:

- ``auto``: in the precision that the detector was calibrated with, batch norms folded,
  channels last;
- ``reference``: the network as it was published, in float32; slow;
- ``compiled``: as ``auto``, and compiled by PyTorch's inductor; half a minute at an actor's start;
- ``float32``, ``bfloat16``: as ``auto``, whatever the detector was calibrated with.
"""


def forward_precision(mode: str, calibrated: str) -> str:
    """The precision of a forward mode, given the one that the detector was calibrated with."""
    if mode in PRECISIONS:
        return mode
    return FLOAT32 if mode == REFERENCE else calibrated


def used_precision(precision: str, device: torch.device) -> str:
    """What a network of this precision really computes with on this device.

    ``bfloat16`` is used where the device computes with it; on hardware that would only imitate it,
    float32 is.
    """
    return BFLOAT16 if precision == BFLOAT16 and _computes_bfloat16(device) else FLOAT32


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """The context in which a network of this precision runs on this device.

    Args:
        precision: one of ``PRECISIONS``.
        device: where the network's tensors lie.
    """
    enabled = used_precision(precision, device) == BFLOAT16
    with exact_convolutions(device), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


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
