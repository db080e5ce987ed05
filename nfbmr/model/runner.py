"""A backbone on its device, ready to turn batches of decoded pictures into features.

Shapes: B pictures, H, W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.compilation import compiled, compiler
from nfbmr.model.folding import folded
from nfbmr.model.network import first_stage
from nfbmr.model.precision import (
    AUTOMATIC,
    COMPILED,
    FLOAT32,
    MIXED,
    REFERENCE,
    autocast,
    forward_precision,
    start_in_float32,
    used_precision,
)


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
        forward: one of ``FORWARD_MODES``.

    Attributes:
        numerics: how the forward passes are computed, in words.
    """

    def __init__(
        self,
        settings: BackboneSettings,
        *,
        batch_size: int = 16,
        threads: int | None = None,
        device: torch.device | None = None,
        forward: str = AUTOMATIC,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.device = device or best_device()
        self.batch_size = batch_size
        self.backbone = create_backbone(settings).to(self.device)
        self.precision = forward_precision(forward, self.backbone.settings.precision)
        self.numerics = used_precision(self.precision, self.device)
        self._network: Callable[[Tensor], Tensor] = self.backbone
        self._context = self.precision
        if forward != REFERENCE:
            self._make_fast(forward)

    def _make_fast(self, forward: str) -> None:
        self.backbone = folded(self.backbone).to(memory_format=torch.channels_last)
        if self.numerics == MIXED:
            network = self.backbone.network
            last = first_stage(self.backbone.settings.name, network)
            start_in_float32(network, last, self.device)
            self.numerics = f"bfloat16 after {last}, float32 before"
        self.numerics += ", batch norms folded, channels last"
        self._network = self.backbone
        if forward == COMPILED and compiler() is None:
            self.numerics += ", not compiled: there is no C++ compiler (g++, or $CXX) at hand"
        elif forward == COMPILED:
            self.numerics += ", compiled"
            # Its casts were recorded: in a context of their own they would be made once more.
            self._context = FLOAT32
            self._network = compiled(self.backbone, self.precision, self.batch_size)

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
            (B, C, H, W), float32, on the runner's device; on a GPU, where work is queued, they
            may not be computed yet.
        """
        torch.set_num_threads(self.threads)  # PyTorch keeps the number for each calling thread
        chunks = [
            self.forward(self._upload(pixels_BHWC[start : start + self.batch_size]))
            for start in range(0, len(pixels_BHWC), self.batch_size)
        ]
        return torch.cat(chunks)

    @torch.inference_mode()
    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        """Features of one batch that lies on the device: (B, C, H, W), float32."""
        with autocast(self._context, self.device):
            return self._network(pixels_BHWC).float()

    def _upload(self, pixels_BHWC: NDArray[np.uint8]) -> Tensor:
        """Pixels on the device.

        A GPU takes them from page-locked memory while it works on the batch before.
        """
        # A copy: PyTorch warns of memory that must not be written, as Arrow's is.
        uploaded = torch.from_numpy(pixels_BHWC.copy())
        if self.device.type != "cuda":
            return uploaded
        return uploaded.pin_memory().to(self.device, non_blocking=True)

    def wait(self) -> None:
        """Wait until what is queued on a GPU is computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
