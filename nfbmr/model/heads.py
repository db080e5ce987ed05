"""What is fitted per category: standardisation, flow and mapper on top of a frozen backbone.

Shapes: B pictures, C channels, H height, W width of the feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nfbmr.errors import FitError
from nfbmr.model.flow import Flow, FlowSettings
from nfbmr.model.mapper import Mapper, MapperSettings
from nfbmr.model.precision import FLOAT32, autocast
from nfbmr.model.scoring import anomaly_map, flow_only_map, squared_distance_map

EQ14 = "eq14"
FLOW_ONLY = "flow"
SOURCE_HALF = "source"
TARGET_HALF = "target"


@dataclass(frozen=True, slots=True)
class HeadsSettings:
    """Shapes of flow and mapper, and whether features are standardised first.

    Attributes:
        flow: see ``FlowSettings``.
        mapper: see ``MapperSettings``.
        standardize: subtract each channel's mean and divide by its standard deviation over the
            training pictures before anything else. Not in the paper; it raised the image AUROC on
            real photographs (DESIGN, "What was measured").
        precision: of the convolutions of flow and mapper; distances and maps are float32.
    """

    flow: FlowSettings = field(default_factory=FlowSettings)
    mapper: MapperSettings = field(default_factory=MapperSettings)
    standardize: bool = True
    precision: str = FLOAT32


FLOOR = 0.3
"""Standard deviation, as a share of the median channel's, that is added to every channel's.

Introduced on the demo's procedural surfaces, which leave channels of the embedded backbone nearly
constant."""


class Standardizer(nn.Module):
    """Per-channel standardisation with fixed statistics; a dead channel becomes 0.

    Channels that hardly vary over the training pictures would be blown up by a plain division
    until one unusual normal picture outweighs everything else. So the variance of every channel
    is raised by that of ``FLOOR`` times the median standard deviation.

    Attributes:
        mean_1C11: channel means.
        scale_1C11: reciprocal raised standard deviations; 0 for a channel that is constant over
            the training pictures.
    """

    mean_1C11: Tensor
    scale_1C11: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_1C11", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale_1C11", torch.ones(1, channels, 1, 1))

    def fit(self, y_BCHW: Tensor, chunk_size: int = 256) -> None:
        """Take the statistics of all training features, in float64, chunk by chunk.

        Args:
            y_BCHW: features of the training pictures, any float dtype.
            chunk_size: pictures converted at a time.

        Raises:
            FitError: a feature is not finite.
        """
        self.fit_chunks(lambda: y_BCHW.split(chunk_size))

    def fit_chunks(self, chunks: Callable[[], Iterable[Tensor]]) -> None:
        """Take the statistics of features that come in pieces; two passes are made over them.

        Args:
            chunks: starts a pass; gives pieces (B, C, H, W), any float dtype, at least one.

        Raises:
            FitError: a feature is not finite.
        """
        sum_C, count = torch.zeros((), dtype=torch.float64), 0
        for chunk in chunks():
            sum_C = sum_C + chunk.double().sum((0, 2, 3))
            count += chunk.shape[0] * chunk.shape[2] * chunk.shape[3]
        mean_C = sum_C / count
        squares_C = torch.zeros_like(mean_C)
        for chunk in chunks():
            squares_C += (chunk.double() - mean_C.view(1, -1, 1, 1)).square().sum((0, 2, 3))
        variance_C = squares_C / count
        if not bool(torch.isfinite(variance_C).all()):
            channels = (~torch.isfinite(variance_C)).nonzero().flatten().tolist()
            raise FitError(
                f"The backbone's features are not finite in {len(channels)} channels (first: "
                f"{channels[:5]}): its weights are damaged or half precision overflowed; check "
                "backbone.weights."
            )
        std_C = variance_C.sqrt()
        dead_C = std_C <= 1e-6 * mean_C.abs().clamp_min(1.0)
        live_C = std_C[~dead_C]
        floor = FLOOR * live_C.median() if live_C.numel() else std_C.new_ones(())
        scale_C = torch.where(dead_C, 0.0, (variance_C + floor.square()).rsqrt())
        self.mean_1C11.copy_(mean_C.view(1, -1, 1, 1))
        self.scale_1C11.copy_(scale_C.view(1, -1, 1, 1))

    def forward(self, y_BCHW: Tensor) -> Tensor:
        """Return standardised features, float32, same shape."""
        return (y_BCHW.float() - self.mean_1C11) * self.scale_1C11


class Heads(nn.Module):
    """Standardiser, flow and mapper of one category.

    Maps are eq. 14 divided by the number of channels C, as eqs. 11 and 12 are: of normal pictures,
    values near 1 whatever the backbone. What lies far from everything normal may get millions,
    since the flow stretches by exponentials. The division changes no ranking.

    Args:
        shape: (C, H, W) of the backbone's features.
        settings: shapes of the parts.
    """

    def __init__(self, shape: tuple[int, int, int], settings: HeadsSettings) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = shape
        self.settings = settings
        self.standardizer = Standardizer(channels)
        self.flow = Flow(channels, height, width, settings.flow)
        has_mapper = settings.mapper.kind != "none"
        self.mapper = Mapper(channels, settings.mapper) if has_mapper else None

    @property
    def default_map(self) -> str:
        """The map that scores pictures: ``eq14`` with a mapper, ``flow`` without."""
        return FLOW_ONLY if self.mapper is None else EQ14

    def forward(self, y_BCHW: Tensor) -> Tensor:
        """The anomaly map of raw backbone features, (B, H, W), float32."""
        if self.mapper is None:
            return flow_only_map(self._features(y_BCHW)[1]) / self.shape[0]
        y_BCHW, z_BCHW, y_hat_BCHW, z_hat_BCHW = self._features(y_BCHW)
        return anomaly_map(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW) / self.shape[0]

    def _features(self, y_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Standardised ``y``, ``z`` and, with a mapper, ``ŷ`` and ``ẑ``; all float32."""
        y_BCHW = self.standardizer(y_BCHW)
        with autocast(self.settings.precision, y_BCHW.device):
            z_BCHW, _ = self.flow(y_BCHW)
            if self.mapper is None:
                return y_BCHW, z_BCHW.float()
            y_hat_BCHW, z_hat_BCHW = self.mapper(y_BCHW, z_BCHW)
        return y_BCHW, z_BCHW.float(), y_hat_BCHW.float(), z_hat_BCHW.float()

    def all_maps(self, y_BCHW: Tensor) -> dict[str, Tensor]:
        """Every map that the ablation compares, each (B, H, W), float32.

        Returns:
            ``flow``; with a mapper also ``source`` and ``target`` (the halves of eq. 14) and
            ``eq14``.
        """
        y_BCHW, z_BCHW, *mapped = self._features(y_BCHW)
        maps = {FLOW_ONLY: flow_only_map(z_BCHW)}
        if mapped:
            y_hat_BCHW, z_hat_BCHW = mapped
            maps[SOURCE_HALF] = squared_distance_map(y_BCHW, y_hat_BCHW)
            maps[TARGET_HALF] = squared_distance_map(z_BCHW, z_hat_BCHW)
            maps[EQ14] = anomaly_map(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW)
        return {name: map_BHW / self.shape[0] for name, map_BHW in maps.items()}
