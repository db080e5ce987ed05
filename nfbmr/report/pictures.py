"""Pictures of the page: masks as outlines, the legend of the heat, everything inside the file.

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

from nfbmr.drawing import COLOURS

_MASK_COLOUR = (0, 230, 255)


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
    ramp_1WC = colormaps[COLOURS](np.linspace(0, 1, 128))[None, :, :3] * 255
    return data_uri(np.asarray(ramp_1WC, dtype=np.uint8))
