"""Batch normalisations of a frozen network folded into the convolutions before them.

Shapes: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nfbmr.model.backbone import Backbone

_TOLERANCE = 1e-3


@torch.no_grad()
def folded(backbone: Backbone) -> Backbone:
    """The backbone with fewer layers and, up to rounding, the same features.

    Which normalisation follows which convolution is guessed from the order in which a module
    names its children. The guess is checked by running both networks on one picture of noise:
    where the features differ, the backbone comes back as it was.

    Args:
        backbone: on the device on which it will run, in float32.
    """
    candidate = copy.deepcopy(backbone)
    if _fold_children(candidate.network) == 0:
        return backbone
    size = backbone.settings.image_size_px
    generator = torch.Generator().manual_seed(0)
    pixels_BHWC = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator)
    pixels_BHWC = pixels_BHWC.to(backbone.get_buffer("mean_1C11").device)
    return candidate if _close(candidate(pixels_BHWC), backbone(pixels_BHWC)) else backbone


def _close(y_BCHW: Tensor, expected_BCHW: Tensor) -> bool:
    error = (y_BCHW - expected_BCHW).square().mean().sqrt()
    return bool(error <= _TOLERANCE * expected_BCHW.square().mean().sqrt())


def _fold_children(module: nn.Module) -> int:
    """Fold in place, at every depth; returns how many normalisations went."""
    count = 0
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        if _folds(previous, child):
            assert isinstance(previous, nn.Conv2d)
            assert isinstance(child, nn.BatchNorm2d)
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            # timm's BatchNormAct2d carries the dropout and activation that come after it.
            rest = [getattr(child, part, None) for part in ("drop", "act")]
            setattr(module, name, nn.Sequential(*(part for part in rest if part is not None)))
            count += 1
        else:
            count += _fold_children(child)
        previous_name, previous = name, child
    return count


def _folds(previous: nn.Module | None, child: nn.Module) -> bool:
    """Whether ``child`` normalises what ``previous`` convolves, and neither is the cut."""
    return (
        isinstance(previous, nn.Conv2d)
        and isinstance(child, nn.BatchNorm2d)
        and child.num_features == previous.out_channels
        and child.running_var is not None
        and not previous._forward_hooks
        and not child._forward_hooks
    )
