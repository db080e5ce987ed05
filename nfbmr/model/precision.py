"""In which floating-point format convolutions are computed."""

from __future__ import annotations

import torch

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network of this precision runs on this device.

    ``bfloat16`` is used where the device computes with it; on hardware that would only imitate it
    the context does nothing and float32 is used.

    Args:
        precision: one of ``PRECISIONS``.
        device: where the network's tensors lie.
    """
    enabled = precision == BFLOAT16 and _computes_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    # Arm's name for the instructions is plain "bf16".
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
