"""The bidirectional mapping residual network (BMR): ``y`` → ``ẑ`` and ``z`` → ``ŷ``.

Shapes: B pictures, C channels, H height, W width of the feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from nfbmr.errors import ConfigError

MAPPER_KINDS = ("bmr", "b-pfm", "none")
MAX_RESIDUAL_BLOCKS = 1000


@dataclass(frozen=True, slots=True)
class MapperSettings:
    """Shape of the mapper. The defaults are the paper's (section 4.2, item 3).

    Attributes:
        kind: ``bmr`` (the paper's), ``b-pfm`` (row 4 of Table 5: five 1×1 convolutions, the middle
            one shared), or ``none`` (row 5: flow only).
        residual_blocks: n, the residual blocks on each side of the shared one (``bmr`` only).
        latent_channels: c_latent, the channels between the first and the last convolution.
        block_channels: the width inside a residual block; the paper does not give it.
    """

    kind: str = "bmr"
    residual_blocks: int = 2
    latent_channels: int = 1024
    block_channels: int = 256

    def __post_init__(self) -> None:
        if self.kind not in MAPPER_KINDS:
            raise ConfigError(
                f"mapper.kind = {self.kind!r}: expected one of {', '.join(MAPPER_KINDS)}."
            )
        if not 0 <= self.residual_blocks <= MAX_RESIDUAL_BLOCKS:
            raise ConfigError(
                f"mapper.residual_blocks = {self.residual_blocks}: expected 0 to "
                f"{MAX_RESIDUAL_BLOCKS}; the paper uses 2."
            )
        if min(self.latent_channels, self.block_channels) < 1:
            raise ConfigError(
                f"mapper.latent_channels = {self.latent_channels} and mapper.block_channels = "
                f"{self.block_channels}: both must be at least 1."
            )


class ResidualBlock(nn.Module):
    """1×1, 3×3, 1×1 convolutions, a ReLU after each, plus the input (section 3.3, Fig. 4)."""

    def __init__(self, channels: int, block_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, block_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(block_channels, block_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(block_channels, channels, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return ``h + body(h)``, same shape."""
        output: Tensor = h_BCHW + self.body(h_BCHW)
        return output


class _MappingNetwork(nn.Module):
    """One direction, without the block it shares with the other: before it and after it."""

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.after = after

    def forward(self, h_BCHW: Tensor, shared: nn.Module) -> Tensor:
        """Map (B, C, H, W) to the same shape through ``shared``."""
        output: Tensor = self.after(shared(self.before(h_BCHW)))
        return output


def _bmr_direction(channels: int, settings: MapperSettings) -> _MappingNetwork:
    """Conv, n residual blocks | shared | n residual blocks, conv (Fig. 4)."""
    latent = settings.latent_channels

    def blocks() -> list[nn.Module]:
        inner = settings.block_channels
        return [ResidualBlock(latent, inner) for _ in range(settings.residual_blocks)]

    return _MappingNetwork(
        nn.Sequential(nn.Conv2d(channels, latent, 1), *blocks()),
        nn.Sequential(*blocks(), nn.Conv2d(latent, channels, 1)),
    )


def _b_pfm_direction(channels: int, settings: MapperSettings) -> _MappingNetwork:
    """Two 1×1 convolutions | the shared third | two more, ReLU between (section 3.3)."""
    latent = settings.latent_channels

    def relu() -> nn.ReLU:
        return nn.ReLU(inplace=True)

    return _MappingNetwork(
        nn.Sequential(nn.Conv2d(channels, latent, 1), relu(), nn.Conv2d(latent, latent, 1), relu()),
        nn.Sequential(relu(), nn.Conv2d(latent, latent, 1), relu(), nn.Conv2d(latent, channels, 1)),
    )


class Mapper(nn.Module):
    """The pair of mapping networks that share one block in their middle (section 3.3).

    Args:
        channels: C of the features.
        settings: the mapper's shape; its kind must not be ``none``.

    Raises:
        ConfigError: the kind is ``none``, which has no mapper.
    """

    def __init__(self, channels: int, settings: MapperSettings) -> None:
        super().__init__()
        latent = settings.latent_channels
        self.settings = settings
        self.shared: nn.Module
        if settings.kind == "bmr":
            self.shared = ResidualBlock(latent, settings.block_channels)
            direction = _bmr_direction
        elif settings.kind == "b-pfm":
            self.shared = nn.Conv2d(latent, latent, 1)
            direction = _b_pfm_direction
        else:
            raise ConfigError("mapper.kind = 'none' has no mapper: use the flow alone.")
        self.target_mapper = direction(channels, settings)
        self.source_mapper = direction(channels, settings)

    def forward(self, y_BCHW: Tensor, z_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map each domain to the other.

        Returns:
            ``ŷ`` from ``z`` (eq. 10) and ``ẑ`` from ``y`` (eq. 9), both (B, C, H, W).
        """
        y_hat_BCHW: Tensor = self.source_mapper(z_BCHW, self.shared)
        z_hat_BCHW: Tensor = self.target_mapper(y_BCHW, self.shared)
        return y_hat_BCHW, z_hat_BCHW


def mapper_loss(
    y_BCHW: Tensor, y_hat_BCHW: Tensor, z_BCHW: Tensor, z_hat_BCHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Source loss (eq. 11) and target loss (eq. 12), means over the batch, in float32.

    Their sum is the loss of eq. 13.
    """
    source_loss = functional.mse_loss(y_hat_BCHW.float(), y_BCHW.float())
    target_loss = functional.mse_loss(z_hat_BCHW.float(), z_BCHW.float())
    return source_loss, target_loss
