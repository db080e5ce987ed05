"""Defects on procedural surfaces, drawn into the surface's values before colour and grain.

Every function takes values (H, W), float32, 0..1, and returns a changed copy of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nfbmr.data.textures import FAMILIES, FloatImage, TextureClass, colour

_WITHOUT_DIRECTION = ("fractal", "speckle")

Defect = Callable[[FloatImage, TextureClass, np.random.Generator], FloatImage]


def scratch(value_HW: FloatImage, texture: TextureClass, rng: np.random.Generator) -> FloatImage:
    """A straight or slightly bent line, brighter or darker than the surface."""
    size = value_HW.shape[0]
    length = size * rng.uniform(0.3, 0.6)
    steps = np.linspace(-0.5, 0.5, int(length * 2))
    angle = rng.uniform(0, np.pi)
    bend = rng.uniform(-0.15, 0.15) * length * (4 * steps**2)
    centre_y, centre_x = rng.uniform(0.3, 0.7, 2) * size
    y = centre_y + steps * length * np.sin(angle) + bend * np.cos(angle)
    x = centre_x + steps * length * np.cos(angle) - bend * np.sin(angle)
    return _draw_path(value_HW, y, x, rng.uniform(1.0, 1.8), rng)


def crack(value_HW: FloatImage, texture: TextureClass, rng: np.random.Generator) -> FloatImage:
    """A jagged path that wanders."""
    size = value_HW.shape[0]
    steps = int(size * rng.uniform(0.5, 0.9))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.22, steps))
    y = rng.uniform(0.25, 0.75) * size + np.cumsum(np.sin(heading)) * 0.6
    x = rng.uniform(0.25, 0.75) * size + np.cumsum(np.cos(heading)) * 0.6
    return _draw_path(value_HW, y, x, rng.uniform(1.0, 1.6), rng)


def _draw_path(
    value_HW: FloatImage,
    y: np.ndarray,
    x: np.ndarray,
    radius_px: float,
    rng: np.random.Generator,
) -> FloatImage:
    """Blend a path of points into the values, with soft edges, away from the surface's mean."""
    size = value_HW.shape[0]
    inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    free_HW = np.ones_like(value_HW, dtype=bool)
    free_HW[y[inside].astype(int), x[inside].astype(int)] = False
    distance_HW = ndimage.distance_transform_edt(free_HW)
    alpha_HW = np.clip(radius_px + 1.0 - distance_HW, 0.0, 1.0)
    target = 0.0 if value_HW.mean() > 0.5 else 1.0
    strength = rng.uniform(0.7, 0.95)
    return _blend(value_HW, np.full_like(value_HW, target), alpha_HW * strength)


def stain(value_HW: FloatImage, texture: TextureClass, rng: np.random.Generator) -> FloatImage:
    """An irregular spot that is darker or lighter; the surface shows through."""
    alpha_HW = _spot(value_HW.shape[0], rng, 0.06, 0.14)
    target = float(rng.choice((0.0, 1.0)))
    return _blend(value_HW, np.full_like(value_HW, target), alpha_HW * rng.uniform(0.5, 0.75))


def foreign(value_HW: FloatImage, texture: TextureClass, rng: np.random.Generator) -> FloatImage:
    """A spot of the same kind of surface with another direction and scale.

    Surfaces that have no direction get a spot of another kind.
    """
    alpha_HW = _spot(value_HW.shape[0], rng, 0.08, 0.16)
    turned = tuple((value + 0.5) % 1.0 for value in texture.parameters[:3])
    family = "cells" if texture.family in _WITHOUT_DIRECTION else texture.family
    other = replace(texture, family=family, parameters=turned + texture.parameters[3:])
    other_HW = FAMILIES[other.family](other.parameters, value_HW.shape[0], rng)
    return _blend(value_HW, other_HW, alpha_HW)


def worn(value_HW: FloatImage, texture: TextureClass, rng: np.random.Generator) -> FloatImage:
    """A spot where the surface's structure is gone: worn, smeared, elements missing."""
    alpha_HW = _spot(value_HW.shape[0], rng, 0.08, 0.15)
    smooth_HW = ndimage.gaussian_filter(value_HW, value_HW.shape[0] / 24)
    return _blend(value_HW, smooth_HW.astype(np.float32), alpha_HW)


def _spot(size_px: int, rng: np.random.Generator, smallest: float, largest: float) -> FloatImage:
    """Opacity of an irregular round spot; radii are shares of the picture's size."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32)
    centre_y, centre_x = rng.uniform(0.2, 0.8, 2) * size_px
    angle = np.arctan2(y - centre_y, x - centre_x)
    radius = size_px * rng.uniform(smallest, largest)
    for frequency in (2, 3, 5):
        radius = radius * (
            1 + rng.uniform(-0.15, 0.15) * np.sin(frequency * angle + rng.uniform(0, 6))
        )
    distance = np.hypot(y - centre_y, x - centre_x)
    return np.asarray(np.clip((radius - distance) / 3.0, 0.0, 1.0), dtype=np.float32)


def _blend(value_HW: FloatImage, other_HW: FloatImage, alpha_HW: np.ndarray) -> FloatImage:
    mixed_HW = value_HW * (1 - alpha_HW) + other_HW * alpha_HW
    return np.asarray(np.clip(mixed_HW, 0, 1), dtype=np.float32)


def draw_defect(
    texture: TextureClass, size_px: int, rng: np.random.Generator, defect_type: str | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render a picture of a surface with a defect, and the very same picture without it.

    Args:
        texture: the surface.
        size_px: height and width.
        rng: what differs from picture to picture.
        defect_type: a name of ``DEFECTS``, or None for a normal picture, twice.

    Returns:
        The two pictures, (H, W, 3) each, uint8; they differ exactly where the defect is.
    """
    value_HW = FAMILIES[texture.family](texture.parameters, size_px, rng)
    grain_seed = int(rng.integers(2**63))
    normal_HWC = colour(texture, value_HW, np.random.default_rng(grain_seed))
    if defect_type is None:
        return normal_HWC, normal_HWC
    defective_HW = DEFECTS[defect_type](value_HW, texture, rng)
    return colour(texture, defective_HW, np.random.default_rng(grain_seed)), normal_HWC


DEFECTS: dict[str, Defect] = {
    "crack": crack,
    "foreign": foreign,
    "scratch": scratch,
    "stain": stain,
    "worn": worn,
}
