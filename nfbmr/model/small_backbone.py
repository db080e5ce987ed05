"""The small network that comes with the package, for the demo, the tests and air-gapped trials.

Shapes: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (32, 48, 96, 160)
"""Channels after ``stem``, ``layer1``, ``layer2``, ``layer3`` (strides 2, 4, 8, 16)."""


class _Block(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        out_BCHW = functional.relu(self.bn1(self.conv1(h_BCHW)))
        out_BCHW = self.bn2(self.conv2(out_BCHW)) + self.shortcut(h_BCHW)
        return functional.relu(out_BCHW)


class SmallBackbone(nn.Module):
    """A residual network of about 1.3 million parameters with named stages.

    Args:
        classes: outputs of the classification head; with 0 there are neither that head nor the
            one that marks defects, which only pretraining uses.
    """

    feature_info: ClassVar[list[dict[str, str]]] = [
        {"module": name} for name in ("stem", "layer1", "layer2", "layer3")
    ]
    """Its stages, as timm's networks tell theirs."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        stem, first, second, third = CHANNELS
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.layer1 = nn.Sequential(_Block(stem, first, 2), _Block(first, first, 1))
        self.layer2 = nn.Sequential(_Block(first, second, 2), _Block(second, second, 1))
        self.layer3 = nn.Sequential(_Block(second, third, 2), _Block(third, third, 1))
        self.head: nn.Module = nn.Linear(third, classes) if classes else nn.Identity()
        self.defect_head: nn.Module = nn.Conv2d(third, 1, 1) if classes else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores (B, classes) of normalised pictures; pooled features without classes."""
        scores: Tensor = self.head(self.features(x_BCHW).mean((2, 3)))
        return scores

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The output of ``layer3``, (B, 160, H / 16, W / 16)."""
        h_BCHW: Tensor = self.layer3(self.layer2(self.layer1(self.stem(x_BCHW))))
        return h_BCHW


def create_small_backbone(classes: int = 0) -> SmallBackbone:
    """A randomly initialised network; see ``SmallBackbone``."""
    return SmallBackbone(classes)
