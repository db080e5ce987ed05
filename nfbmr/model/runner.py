"""A backbone on its device, ready to turn batches of decoded pictures into features.

Shapes: B pictures, H, W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
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
        self.threads = torch.get_num_threads()
        self.device = device or best_device()
        self.batch_size = batch_size
        backbone = create_backbone(settings).to(self.device)
        self.backbone = folded(backbone).to(memory_format=torch.channels_last)
        self.precision = self.backbone.settings.precision

    def features(self, pixels: Sequence[bytes | memoryview]) -> Tensor:
        """Features of pictures given as raw ``uint8`` RGB buffers of the backbone's image size.

        Returns:
            (B, C, H, W), float32, on the runner's device.
        """
        size = self.backbone.settings.image_size_px
        flat: NDArray[np.uint8] = np.frombuffer(b"".join(pixels), dtype=np.uint8)
        return self.features_of(flat.reshape(len(pixels), size, size, 3))

    @torch.inference_mode()
    def features_of(self, pixels_BHWC: NDArray[np.uint8]) -> Tensor:
        """Features of pictures (B, H, W, 3), uint8, of the backbone's image size.

        Returns:
            (B, C, H, W), float32, on the runner's device.
        """
        torch.set_num_threads(self.threads)  # PyTorch keeps the number for each calling thread
        with autocast(self.precision, self.device):
            chunks = [
                self.backbone(self._upload(pixels_BHWC[start : start + self.batch_size])).float()
                for start in range(0, len(pixels_BHWC), self.batch_size)
            ]
        return torch.cat(chunks)

    def _upload(self, pixels_BHWC: NDArray[np.uint8]) -> Tensor:
        # A copy: PyTorch warns of memory that must not be written, as Arrow's is.
        return torch.from_numpy(pixels_BHWC.copy()).to(self.device)
