"""Anomaly maps of the pictures that calibrate, each from heads that were not fitted on it.

Either the pictures were held out of the one fit, or there are too few for that and they are
cross-fitted: K folds, and for each of them heads that were fitted on the other K - 1.

**What a cross-fitted calibration promises.** A held-out one is exact: a new normal picture and the
held-out ones are scored by the same heads, so their ranks are exchangeable. Cross-fitted, a new
picture is scored by heads that were fitted on all n normals, and is compared with scores from heads
that saw n (1 - 1/K) of them. The rate holds as far as the fit is stable, that is, as far as heads
fitted on fewer normals do not score unseen normals *lower*; having seen less, they score them a
little higher, so that false alarms lie below the requested rate rather than above it. Without any
assumption, cross-conformal prediction guarantees twice the rate (Barber, Candès, Ramdas and
Tibshirani 2021, theorem 4, CV+), but only where the new picture is scored by all K heads as well,
which would cost K times as much in every scoring run.

Shapes: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfbmr.model.heads import Heads
from nfbmr.train.entry_names import entry_of_picture

Load = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class HeldOutMaps:
    """Maps of pictures by heads that were not fitted on them.

    Attributes:
        normal_NHW: of normal pictures, float32, on the CPU.
        synthetic_NHW: of the same pictures with synthetic defects; empty where there are none.
        normal_entries: their cache entries, in the same order.
        synthetic_entries: the same for those with synthetic defects.
    """

    normal_NHW: Tensor
    synthetic_NHW: Tensor
    normal_entries: tuple[str, ...]
    synthetic_entries: tuple[str, ...]


def held_out_maps(
    heads: Heads,
    load: Load,
    entries: Sequence[str],
    synthetic_entries: Sequence[str],
    device: str | torch.device = "cpu",
) -> HeldOutMaps:
    """Maps of pictures that were held out of the fit of ``heads``.

    Args:
        heads: fitted without any of these pictures.
        load: gives the features (N, C, H, W) of cache entries.
        entries: of normal pictures.
        synthetic_entries: of the same pictures with synthetic defects.
        device: where the heads run.
    """
    return HeldOutMaps(
        _maps(heads, load, entries, device),
        _maps(heads, load, synthetic_entries, device),
        tuple(entries),
        tuple(synthetic_entries),
    )


def cross_fitted_maps(
    fit: Callable[[Sequence[str]], Heads],
    load: Load,
    entries: Sequence[str],
    synthetic_entries: Sequence[str],
    folds: int,
    device: str | torch.device = "cpu",
) -> HeldOutMaps:
    """Maps of all normal pictures, each by heads fitted on the other folds.

    A picture with a synthetic defect belongs to the fold of the picture that it was cut into, and
    pictures of the same content to one fold.

    Args:
        fit: fits heads on the pictures of cache entries.
        load: gives the features (N, C, H, W) of cache entries.
        entries: of all normal pictures.
        synthetic_entries: of pictures with synthetic defects.
        folds: K, at least 2.
        device: where the heads run.
    """
    fold_of = {entry: i % folds for i, entry in enumerate(dict.fromkeys(entries))}
    parts: list[HeldOutMaps] = []
    for fold in range(folds):
        heads = fit([entry for entry in entries if fold_of[entry] != fold])
        own = [entry for entry in entries if fold_of[entry] == fold]
        cut = [e for e in synthetic_entries if fold_of[entry_of_picture(e)] == fold]
        parts.append(held_out_maps(heads, load, own, cut, device))
    return HeldOutMaps(
        torch.cat([part.normal_NHW for part in parts]),
        torch.cat([part.synthetic_NHW for part in parts]),
        tuple(entry for part in parts for entry in part.normal_entries),
        tuple(entry for part in parts for entry in part.synthetic_entries),
    )


def _maps(heads: Heads, load: Load, entries: Sequence[str], device: str | torch.device) -> Tensor:
    if not entries:
        return torch.empty(0, *heads.shape[1:])
    return anomaly_maps(heads, load(entries), device)


@torch.inference_mode()
def anomaly_maps(heads: Heads, y_NCHW: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Anomaly maps (N, H, W) of raw features in batches of 64, float32, on the CPU."""
    heads = heads.to(device)
    maps = [heads(chunk.to(device).float()).cpu() for chunk in y_NCHW.split(64)]
    heads.to("cpu")
    return torch.cat(maps)
