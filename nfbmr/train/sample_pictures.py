"""The pictures that a version carries for people: losses over the epochs, samples with heatmaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.synthetic_defects import cut_defect
from nfbmr.drawing import MappedPicture, heatmap_sheet_png, loss_curves_png
from nfbmr.errors import DataError, DecodeError
from nfbmr.train.entry_names import defect_seed
from nfbmr.train.fit import EpochLosses

LOSSES_FILE = "losses.png"
HEATMAPS_FILE = "heatmaps.png"
_SHOWN_SIZE_PX = 224
_OF_EACH_KIND = 3


def draw_losses(folder: Path, losses: Sequence[EpochLosses]) -> None:
    """Write ``losses.png``; nothing where no epoch was reported."""
    curves: dict[str, list[float]] = {}
    for epoch in losses:
        for name, value in epoch.losses.items():
            curves.setdefault(name, []).append(value)
    if curves:
        (folder / LOSSES_FILE).write_bytes(loss_curves_png(curves))


def draw_heatmaps(
    folder: Path,
    kinds: Mapping[str, Mapping[str, float]],
    maps: Mapping[str, Tensor],
    uris: Mapping[str, str],
) -> None:
    """Write ``heatmaps.png``: of each kind the pictures with the lowest, middle and highest score.

    A picture that cannot be read now is left out: a drawing is no reason to lose a fit.

    Args:
        folder: of the detector.
        kinds: scores by name of the picture, under the words that the titles use.
        maps: anomaly maps (H, W) by name of the picture.
        uris: where the pictures lie, by name.
    """
    rows = []
    for kind, scores in kinds.items():
        for name in _spread(scores) if scores else ():
            picture = _picture(name, uris)
            if picture is not None:
                title = f"{kind}\nscore {scores[name]:.4g}"
                rows.append(MappedPicture(title, picture, maps[name].float().numpy()))
    if rows:
        normal = torch.stack([maps[name] for name in next(iter(kinds.values()))])
        low = float(normal.float().median())
        (folder / HEATMAPS_FILE).write_bytes(heatmap_sheet_png(rows, low))


def _spread(scores: Mapping[str, float]) -> list[str]:
    """Names from the lowest to the highest score, evenly spread."""
    ordered = sorted(scores, key=lambda name: scores[name])
    places = np.linspace(0, len(ordered) - 1, min(_OF_EACH_KIND, len(ordered)))
    return [ordered[round(float(place))] for place in places]


def _picture(name: str, uris: Mapping[str, str]) -> np.ndarray | None:
    try:
        pixels_HWC = decode_and_resize(read_bytes(uris[name]), _SHOWN_SIZE_PX).pixels_HWC
    except (KeyError, DataError, DecodeError):
        return None
    seed = defect_seed(name)
    return pixels_HWC if seed is None else cut_defect(pixels_HWC, seed)
