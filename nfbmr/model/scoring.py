"""From features to an anomaly map, and from a map to one number per picture.

Shapes: B pictures, C channels, H height, W width of the feature map, P = H·W positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nfbmr.errors import ConfigError


def squared_distance_map(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Squared Euclidean distance over the channels at every position, (B, H, W), float32."""
    return (a_BCHW.float() - b_BCHW.float()).square().sum(1)


def anomaly_map(y_BCHW: Tensor, y_hat_BCHW: Tensor, z_BCHW: Tensor, z_hat_BCHW: Tensor) -> Tensor:
    """The anomaly score map ASM of eq. 14.

    Returns:
        (‖y − ŷ‖² + ‖z − ẑ‖²) / 2 at every position: (B, H, W), float32, never negative.
    """
    source_BHW = squared_distance_map(y_BCHW, y_hat_BCHW)
    target_BHW = squared_distance_map(z_BCHW, z_hat_BCHW)
    return (source_BHW + target_BHW) / 2


def flow_only_map(z_BCHW: Tensor) -> Tensor:
    """The map of row 5 of Table 5, flow without mapper: ‖z‖²/2 of eq. 8 at every position.

    Returns:
        (B, H, W), float32, never negative.
    """
    return z_BCHW.float().square().sum(1) / 2


def _mean_of_top(fraction: float) -> Callable[[Tensor], Tensor]:
    def aggregate(map_BP: Tensor) -> Tensor:
        count = max(1, math.ceil(fraction * map_BP.shape[1]))
        return map_BP.topk(count, dim=1).values.mean(1)

    return aggregate


AGGREGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda map_BP: map_BP.mean(1),
    "top50": _mean_of_top(0.50),
    "top25": _mean_of_top(0.25),
    "top10": _mean_of_top(0.10),
    "top3": _mean_of_top(0.03),
    "max": lambda map_BP: map_BP.amax(1),
    "std": lambda map_BP: map_BP.std(1, correction=0),
}
"""The ways from a map (B, P) to an image score (B,): ``topN`` is the mean of the highest N %.

The paper does not say which it uses; see ``nfbmr.train.aggregate`` for how one is chosen.
"""


def image_scores(map_BHW: Tensor, aggregate: str) -> Tensor:
    """One score per picture, (B,), float32; higher is more anomalous.

    Raises:
        ConfigError: no such aggregate.
    """
    try:
        function = AGGREGATES[aggregate]
    except KeyError:
        raise ConfigError(
            f"aggregate {aggregate!r} does not exist: expected one of {', '.join(AGGREGATES)}."
        ) from None
    return function(map_BHW.float().flatten(1))


def map_peak(map_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of the highest cell of each map, as fractions 0..1 of the picture's width and height.

    Returns:
        ``peak_x`` and ``peak_y``, each (B,), float32.
    """
    _, height, width = map_BHW.shape
    index_B = map_BHW.flatten(1).argmax(1)
    peak_y_B = (torch.div(index_B, width, rounding_mode="floor") + 0.5) / height
    peak_x_B = (index_B % width + 0.5) / width
    return peak_x_B, peak_y_B
