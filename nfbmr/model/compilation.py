"""A backbone compiled by PyTorch's inductor, weights frozen in.

Shapes: B pictures of a batch, H, W height and width, C channels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from nfbmr.model.backbone import Backbone
from nfbmr.model.precision import autocast


def compiler() -> str | None:
    """The C++ compiler that inductor would call at run time, or None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compiled(backbone: Backbone, precision: str, batch_size: int) -> Callable[[Tensor], Tensor]:
    """The same function of batches of one size, faster by fused kernels and packed weights.

    The operations of one forward pass up to the cut are recorded and compiled for their shapes, so
    a smaller batch is filled up. The first call takes half a minute.

    Args:
        backbone: on its device.
        precision: in which it is recorded.
        batch_size: pictures of a batch.
    """
    device = backbone.get_buffer("mean_1C11").device
    size = backbone.settings.image_size_px
    example_BHWC = torch.zeros(batch_size, size, size, 3, dtype=torch.uint8, device=device)
    with torch.no_grad(), autocast(precision, device):
        graph = make_fx(backbone)(example_BHWC)
    network = cast("Callable[[Tensor], Tensor]", torch.compile(graph, options={"freezing": True}))

    def run(pixels_BHWC: Tensor) -> Tensor:
        missing = batch_size - len(pixels_BHWC)
        if missing:
            filled = torch.cat([pixels_BHWC, example_BHWC[:missing]])
            return network(filled)[: len(pixels_BHWC)]
        return network(pixels_BHWC)

    return run
