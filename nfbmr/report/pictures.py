"""Thumbnails of pictures, with the anomaly map as heat over them and the mask as an outline.

Shapes: H, W height and width.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nfbmr.metrics import upsample

LONGEST_SIDE_PX = 224
_COLOURS = "inferno"  # perceptually uniform
_MASK_COLOUR = (0, 230, 255)


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
    height, width = image_HWC.shape[:2]
    clipped_HW = np.clip(map_HW, low, max(high, low + 1e-12))
    if low > 0:
        share_HW = np.log(clipped_HW / low) / np.log(max(high / low, 1 + 1e-9))
    else:
        share_HW = (clipped_HW - low) / max(high - low, 1e-12)
    heat_HW = upsample(np.asarray(share_HW, dtype=np.float32), (height, width))
    heat_HW = np.clip(heat_HW, 0.0, 1.0)
    colour_HWC = colormaps[_COLOURS](heat_HW)[..., :3] * 255.0
    grey_HW1 = image_HWC.mean(-1, keepdims=True)
    mixed_HWC = 0.35 * grey_HW1 + 0.65 * colour_HWC
    return np.asarray(np.clip(mixed_HWC, 0, 255), dtype=np.uint8)


def outline(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with the border of its mask drawn in."""
    height, width = image_HWC.shape[:2]
    resized = Image.fromarray(mask_HW.astype(np.uint8) * 255).resize((width, height))
    small_HW = np.asarray(resized) > 127
    border_HW = ndimage.binary_dilation(small_HW, iterations=2) & ~small_HW
    result_HWC = image_HWC.copy()
    result_HWC[border_HW] = _MASK_COLOUR
    return result_HWC


def data_uri(image_HWC: NDArray[np.uint8]) -> str:
    """A picture as a ``data:`` URI (WebP)."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def legend_uri() -> str:
    """The colours from cold to hot, as a picture one pixel high."""
    ramp_1WC = colormaps[_COLOURS](np.linspace(0, 1, 128))[None, :, :3] * 255
    return data_uri(np.asarray(ramp_1WC, dtype=np.uint8))
