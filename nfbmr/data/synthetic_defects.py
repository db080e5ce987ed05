"""Defects cut into normal pictures, to judge image scores without any real defect.

In the manner of CutPaste (Li et al. 2021): a patch of the picture itself, turned and recoloured,
is put elsewhere. Sizes spread evenly over their logarithm, so that no aggregate from map to image
score is favoured by one size of defect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Changes when the same seed would give other pixels; part of the feature cache's keys."""

_SMALLEST_AREA = 0.002
_LARGEST_AREA = 0.15
_MOST_ELONGATED = 4.0


def cut_defect(image_HWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return a copy of a picture with one synthetic defect in it.

    Args:
        image_HWC: (H, W, 3), uint8, at least 8×8.
        seed: the same seed gives the same defect.

    Returns:
        (H, W, 3), uint8, differing from the input in one patch.
    """
    rng = np.random.default_rng(seed)
    height, width = image_HWC.shape[:2]
    area = np.exp(rng.uniform(np.log(_SMALLEST_AREA), np.log(_LARGEST_AREA))) * height * width
    elongation = np.exp(rng.uniform(-1.0, 1.0) * np.log(_MOST_ELONGATED))
    patch_height = int(np.clip(np.sqrt(area * elongation), 4, height - 1))
    patch_width = int(np.clip(np.sqrt(area / elongation), 4, width - 1))
    source = _random_window(rng, (height, width), (patch_height, patch_width))
    target = _random_window(rng, (height, width), (patch_height, patch_width))
    patch_HWC = _recoloured(image_HWC[source][:: rng.choice((-1, 1)), :: rng.choice((-1, 1))], rng)
    alpha_HW1 = _alpha(patch_height, patch_width, rng)
    defective_HWC = image_HWC.copy()
    mixed_HWC = image_HWC[target] * (1 - alpha_HW1) + patch_HWC * alpha_HW1
    defective_HWC[target] = np.clip(np.rint(mixed_HWC), 0, 255).astype(np.uint8)
    return defective_HWC


def _random_window(
    rng: np.random.Generator, image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[slice, slice]:
    top = int(rng.integers(0, image_size[0] - size[0] + 1))
    left = int(rng.integers(0, image_size[1] - size[1] + 1))
    return slice(top, top + size[0]), slice(left, left + size[1])


def _recoloured(patch_HWC: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Change contrast and brightness, visibly but not beyond what a surface can show."""
    mean = patch_HWC.mean()
    contrast = rng.uniform(0.6, 1.4)
    brightness = rng.choice((-1, 1)) * rng.uniform(10.0, 40.0)
    recoloured: NDArray[np.float64] = (patch_HWC - mean) * contrast + mean + brightness
    return recoloured


def _alpha(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Opacity of the patch: half the time a hard rectangle, else a soft-edged ellipse."""
    if rng.random() < 0.5:
        return np.ones((height, width, 1))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    alpha: NDArray[np.float64] = np.clip(2.0 * (1.0 - (x**2 + y**2)), 0.0, 1.0)[..., None]
    return alpha
