"""What a benchmark ran on, for its record."""

from __future__ import annotations

import os
import platform

import torch

from nfbmr import __version__


def machine() -> dict[str, object]:
    """Cores, processor, GPUs and versions, as plain values for JSON."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "gpus": gpus,
        "torch": torch.__version__,
        "nfbmr": __version__,
    }
