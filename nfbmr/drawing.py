"""Pictures for people: thumbnails, anomaly maps as heat, sheets of both, curves of losses.

Shapes: H, W height and width.

Matplotlib takes half a second to import, and every worker of a fit imports this module long before
it draws: the functions that draw import it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.metrics import upsample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_SIDE_PX = 224
COLOURS = "inferno"  # perceptually uniform
"""The colour map of anomaly maps."""


@dataclass(frozen=True)
class MappedPicture:
    """A picture with its anomaly map.

    Attributes:
        title: what it is, in a few words.
        image_HWC: uint8.
        map_HW: at feature resolution, float32.
    """

    title: str
    image_HWC: NDArray[np.uint8]
    map_HW: NDArray[np.float32]


def thumbnail(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a picture so that its longest side fits the page."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    return np.array(image)


def heatmap(
    image_HWC: NDArray[np.uint8], map_HW: NDArray[np.float32], low: float, high: float
) -> NDArray[np.uint8]:
    """The anomaly map in colour over the grey picture.

    Args:
        image_HWC: the thumbnail, uint8.
        map_HW: at feature resolution.
        low: value of the coldest colour.
        high: value of the hottest colour; the same for all pictures that are compared. The scale
            between them is logarithmic where ``low`` is positive.
    """
    from matplotlib import colormaps

    height, width = image_HWC.shape[:2]
    clipped_HW = np.clip(map_HW, low, max(high, low + 1e-12))
    if low > 0:
        share_HW = np.log(clipped_HW / low) / np.log(max(high / low, 1 + 1e-9))
    else:
        share_HW = (clipped_HW - low) / max(high - low, 1e-12)
    heat_HW = upsample(np.asarray(share_HW, dtype=np.float32), (height, width))
    heat_HW = np.clip(heat_HW, 0.0, 1.0)
    colour_HWC = colormaps[COLOURS](heat_HW)[..., :3] * 255.0
    grey_HW1 = image_HWC.mean(-1, keepdims=True)
    mixed_HWC = 0.35 * grey_HW1 + 0.65 * colour_HWC
    return np.asarray(np.clip(mixed_HWC, 0, 255), dtype=np.uint8)


def heatmap_sheet_png(rows: Sequence[MappedPicture], low: float) -> bytes:
    """Pictures above their heatmaps, all on one colour scale, as a PNG.

    Args:
        rows: at least one.
        low: value of the coldest colour; the hottest is the largest of all maps.
    """
    from matplotlib.figure import Figure

    high = max(float(row.map_HW.max()) for row in rows)
    figure = Figure(figsize=(1.9 * len(rows), 4.2), layout="constrained")
    axes = figure.subplots(2, len(rows), squeeze=False)
    for column, row in enumerate(rows):
        small_HWC = thumbnail(row.image_HWC)
        axes[0, column].imshow(small_HWC)
        axes[0, column].set_title(row.title, fontsize=7)
        axes[1, column].imshow(heatmap(small_HWC, row.map_HW, low, high))
    for axis in axes.flat:
        axis.set_axis_off()
    return _png(figure)


def loss_curves_png(curves: Mapping[str, Sequence[float]]) -> bytes:
    """Losses over the epochs, a panel for each, as a PNG.

    Args:
        curves: by name, at least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(curves), 2.8), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        axis.plot(range(1, len(values) + 1), values, linewidth=1.2)
        axis.set_title(f"{name}: {values[0]:.3g} to {values[-1]:.3g}", fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
