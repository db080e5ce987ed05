"""Procedural textures: a class is drawn from a seed, pictures of it are drawn from a generator.

Used to pretrain the small embedded backbone and as the surfaces of the demo's factory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class TextureClass:
    """One kind of surface.

    Attributes:
        family: name of the generator in ``FAMILIES``.
        parameters: that generator's numbers, each in 0..1.
        dark: RGB of the darkest value, 0..1.
        light: RGB of the lightest value, 0..1.
        grain: standard deviation of the camera's noise, 0..1.
    """

    family: str
    parameters: tuple[float, ...]
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    grain: float


def texture_class(seed: int) -> TextureClass:
    """Draw a class: family, parameters and colours."""
    rng = np.random.default_rng(seed)
    family = sorted(FAMILIES)[int(rng.integers(len(FAMILIES)))]
    parameters = tuple(float(value) for value in rng.random(5))
    grey = rng.random() < 0.5
    dark, light = rng.uniform(0.0, 0.45, 3), rng.uniform(0.5, 1.0, 3)
    if grey:
        dark[:], light[:] = dark[0], light[0]
    return TextureClass(
        family,
        parameters,
        (float(dark[0]), float(dark[1]), float(dark[2])),
        (float(light[0]), float(light[1]), float(light[2])),
        float(rng.uniform(0.005, 0.04)),
    )


def render(texture: TextureClass, size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A new picture of a class.

    Args:
        texture: the class.
        size_px: height and width.
        rng: what differs from picture to picture: phase, noise, a little light.

    Returns:
        (size_px, size_px, 3), uint8.
    """
    value_HW = FAMILIES[texture.family](texture.parameters, size_px, rng)
    return colour(texture, value_HW, rng)


def colour(
    texture: TextureClass, value_HW: FloatImage, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Give values 0..1 the colours, light and grain of a class; (H, W, 3), uint8."""
    dark = np.asarray(texture.dark, dtype=np.float32)
    light = np.asarray(texture.light, dtype=np.float32)
    image_HWC = dark + (light - dark) * value_HW[..., None]
    image_HWC = image_HWC * np.float32(rng.uniform(0.93, 1.07))
    noise_HW = rng.standard_normal(value_HW.shape, dtype=np.float32) * np.float32(texture.grain)
    image_HWC = (image_HWC + noise_HW[..., None]) * 255.0
    return np.asarray(np.clip(np.rint(image_HWC), 0, 255), dtype=np.uint8)


def _normalized(value_HW: NDArray[np.floating]) -> FloatImage:
    """Bring values to 0..1 with mean 0.5, clipping beyond two and a half deviations."""
    centred = value_HW - value_HW.mean()
    scale = max(float(centred.std()), 1e-6) * 5.0
    return np.asarray(np.clip(centred / scale + 0.5, 0.0, 1.0), dtype=np.float32)


def _frequencies(size_px: int) -> tuple[FloatImage, FloatImage]:
    """Vertical and horizontal frequency of every rfft2 coefficient, cycles per pixel."""
    vertical = np.fft.fftfreq(size_px).astype(np.float32)[:, None]
    horizontal = np.fft.rfftfreq(size_px).astype(np.float32)[None, :]
    return vertical, horizontal


def _filtered_noise(
    spectrum_HF: NDArray[np.floating], size_px: int, rng: np.random.Generator
) -> FloatImage:
    """White noise with the amplitude spectrum given for each rfft2 coefficient."""
    noise_HW = rng.standard_normal((size_px, size_px), dtype=np.float32)
    shaped = np.fft.irfft2(np.fft.rfft2(noise_HW) * spectrum_HF, s=(size_px, size_px))
    return _normalized(shaped)


def anisotropic(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """Band-passed noise, longer along one direction: brushed metal, wood, cloudy films."""
    vertical, horizontal = _frequencies(size_px)
    angle = np.pi * p[0]
    along = vertical * np.sin(angle) + horizontal * np.cos(angle)
    across = vertical * np.cos(angle) - horizontal * np.sin(angle)
    stretch = 1.0 + 24.0 * p[1] ** 2
    radius = np.hypot(along * stretch, across)
    centre = 0.01 + 0.2 * p[2] ** 2
    width = centre * (0.4 + 0.8 * p[3])
    return _filtered_noise(np.exp(-(((radius - centre) / width) ** 2)), size_px, rng)


def fractal(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """Power-law noise: concrete, stone, cast surfaces."""
    vertical, horizontal = _frequencies(size_px)
    radius = np.hypot(vertical, horizontal)
    radius[0, 0] = 1.0
    spectrum = (radius + 0.004 + 0.04 * p[1]) ** -(0.8 + 1.4 * p[0])
    spectrum[0, 0] = 0.0
    return _filtered_noise(spectrum, size_px, rng)


def weave(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """Two crossed gratings, over and under each other: fabric, mesh."""
    y, x = _warped_grid(size_px, rng, 1.5 * p[4])
    period = 6.0 + 18.0 * p[0]
    angle = np.pi * p[1]
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
    v = (-x * np.sin(angle) + y * np.cos(angle)) / (period * (0.7 + 0.6 * p[2])) + rng.random()
    warp, weft = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
    over = (np.floor(u) + np.floor(v)) % 2
    value = np.where(over > 0, warp * (0.6 + 0.4 * weft), weft * (0.6 + 0.4 * warp))
    return np.asarray((0.15 + 0.8 * value) ** (0.5 + p[3]), dtype=np.float32)


def grating(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """One or two sums of waves: corrugated sheet, milled faces."""
    y, x = _warped_grid(size_px, rng, 3.0 * p[4])
    angle = np.pi * p[0]
    period = 5.0 + 30.0 * p[1]
    phase = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
    wave = np.sin(2 * np.pi * phase) + p[2] * np.sin(2 * np.pi * (2 + p[3]) * phase)
    return _normalized(wave)


def dots(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """A grid of round elements: printed dots, perforated plate, knurling."""
    y, x = _warped_grid(size_px, rng, 0.6 * p[4])
    period = 12.0 + 20.0 * p[0]
    angle = np.pi / 2 * p[1]
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
    v = (-x * np.sin(angle) + y * np.cos(angle)) / period + rng.random()
    v = v + 0.5 * (np.floor(u) % 2) * (p[2] > 0.5)
    distance = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    radius = 0.18 + 0.2 * p[3]
    return np.asarray(1.0 / (1.0 + np.exp((distance - radius) * 40.0)), dtype=np.float32)


def cells(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """Distances to scattered points (Worley 1996): leather, grain, hammered metal."""
    period = 8.0 + 20.0 * p[0]
    count = int(np.ceil(size_px / period)) + 2
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1)
    points = (grid + 0.5 + (rng.random(grid.shape) - 0.5) * (0.4 + 0.6 * p[1]) - 1) * period
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32)
    row, column = (y // period).astype(int) + 1, (x // period).astype(int) + 1
    nearest = np.full((2, size_px, size_px), 1e9, dtype=np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r = np.clip(row + dy, 0, count - 1)
            c = np.clip(column + dx, 0, count - 1)
            distance = np.hypot(y - points[r, c, 0], x - points[r, c, 1]).astype(np.float32)
            nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], distance))
            nearest[0] = np.minimum(nearest[0], distance)
    mix = nearest[1] - nearest[0] if p[2] > 0.5 else nearest[0]
    return np.asarray(np.clip(mix / period * (0.8 + p[3]), 0, 1), dtype=np.float32)


def speckle(p: tuple[float, ...], size_px: int, rng: np.random.Generator) -> FloatImage:
    """Blurred sparse grains on a calm ground: terrazzo, sprayed paint."""
    vertical, horizontal = _frequencies(size_px)
    blur = np.exp(-(np.hypot(vertical, horizontal) ** 2) * (20.0 + 300.0 * p[0]))
    noise_HW = _filtered_noise(blur, size_px, rng)
    edge = 0.55 + 0.2 * p[1]
    return np.asarray(1.0 / (1.0 + np.exp(-(noise_HW - edge) * (15 + 40 * p[2]))), dtype=np.float32)


def _warped_grid(
    size_px: int, rng: np.random.Generator, amplitude_px: float
) -> tuple[FloatImage, FloatImage]:
    """Pixel coordinates, gently displaced, as no real surface is quite regular."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, 4)
    length = size_px / rng.uniform(1.5, 3.0)
    y_warped = y + amplitude_px * np.sin(2 * np.pi * x / length + phase[0])
    x_warped = x + amplitude_px * np.sin(2 * np.pi * y / length + phase[1])
    return y_warped.astype(np.float32), x_warped.astype(np.float32)


FAMILIES: dict[str, Callable[[tuple[float, ...], int, np.random.Generator], FloatImage]] = {
    "anisotropic": anisotropic,
    "cells": cells,
    "dots": dots,
    "fractal": fractal,
    "grating": grating,
    "speckle": speckle,
    "weave": weave,
}
