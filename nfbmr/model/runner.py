"""A backbone on its device, ready to turn batches of decoded pictures into features.

Shapes: B pictures, H, W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nfbmr.model.backbone import BackboneSettings, create_backbone
from nfbmr.model.folding import folded
from nfbmr.model.precision import autocast


def best_device() -> torch.device:
    """The first GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class BackboneRunner:
    """Holds one backbone in memory and runs it in batches of a fixed size.

    Args:
        settings: the backbone to build.
        batch_size: pictures in one forward pass.
        threads: CPU threads of a forward pass; None leaves PyTorch's number.
        device: where it runs; the best there is by default.
    """

    def __init__(
        self,
        settings: BackboneSettings,
        *,
        batch_size: int = 16,
        threads: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device or best_device()
        self.batch_size = batch_size
        backbone = create_backbone(settings).to(self.device)
        self.backbone = folded(backbone).to(memory_format=torch.channels_last)
        self.precision = self.backbone.settings.precision

    @torch.inference_mode()
    def features(self, pixels: Sequence[bytes | memoryview]) -> Tensor:
        """Features of pictures given as raw ``uint8`` RGB buffers of the backbone's image size.

        Returns:
            (B, C, H, W), float32, on the runner's device.
        """
        with autocast(self.precision, self.device):
            chunks = [
                self.backbone(self.batch(pixels[start : start + self.batch_size])).float()
                for start in range(0, len(pixels), self.batch_size)
            ]
        return torch.cat(chunks)

    def batch(self, pixels: Sequence[bytes | memoryview]) -> Tensor:
        """The buffers as one (B, H, W, 3) ``uint8`` tensor on the device."""
        size = self.backbone.settings.image_size_px
        shape = (len(pixels), size, size, 3)
        pixels_BHWC = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(shape)
        return torch.from_numpy(pixels_BHWC.copy()).to(self.device)
