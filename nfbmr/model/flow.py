"""The target-domain normalizing flow (TNF): features ``y`` → ``z`` ~ N(0, I), same shape.

Shapes: B pictures, C channels, H height, W width of the feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from nfbmr.errors import ConfigError

MAX_COUPLING_BLOCKS = 1000


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """Shape of the flow. The defaults are the paper's (section 4.2, item 2).

    Attributes:
        coupling_blocks: number of affine coupling blocks.
        hidden_channels: width of the one hidden layer of every subnet.
        kernel_size: of both convolutions of a subnet, odd; the paper does not give it. With 1 the
            flow is a density of single feature positions; with 3 it sees their neighbourhood.
        clamp: bound of the log-scale of one coupling block (soft, by an arctangent).
        permutation_seed: fixes the random channel permutations before the coupling blocks.
    """

    coupling_blocks: int = 4
    hidden_channels: int = 1024
    kernel_size: int = 1
    clamp: float = 2.0
    permutation_seed: int = 0

    def __post_init__(self) -> None:
        if self.coupling_blocks < 1 or self.hidden_channels < 1:
            raise ConfigError(
                f"flow.coupling_blocks = {self.coupling_blocks} and flow.hidden_channels = "
                f"{self.hidden_channels}: both must be at least 1."
            )
        if self.coupling_blocks > MAX_COUPLING_BLOCKS:
            raise ConfigError(
                f"flow.coupling_blocks = {self.coupling_blocks}: at most {MAX_COUPLING_BLOCKS} are "
                "built; the paper uses 4."
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ConfigError(
                f"flow.kernel_size = {self.kernel_size}: the subnets keep the size of the map, so "
                "it must be odd, for example 1 or 3."
            )
        if self.clamp <= 0:
            raise ConfigError(f"flow.clamp = {self.clamp}: must be above 0; 2.0 is the default.")


def _subnet_constructor(settings: FlowSettings) -> Callable[[int, int], nn.Module]:
    """Return what FrEIA calls for each subnet: conv → LeakyReLU → conv (section 4.2).

    The last convolution starts at zero, so that an untrained flow only permutes channels and the
    first loss is finite for any features (FrEIA's and CS-Flow's habit).
    """
    padding = settings.kernel_size // 2

    def construct(channels_in: int, channels_out: int) -> nn.Module:
        first = nn.Conv2d(
            channels_in, settings.hidden_channels, settings.kernel_size, padding=padding
        )
        last = nn.Conv2d(
            settings.hidden_channels, channels_out, settings.kernel_size, padding=padding
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        return nn.Sequential(first, nn.LeakyReLU(), last)

    return construct


class Flow(nn.Module):
    """RealNVP-style flow on feature maps (section 3.2, eqs. 2-8).

    Each block splits the permuted channels in halves (eq. 3) and transforms one half after the
    other, scale and shift coming from a subnet that sees the other half (eqs. 4 and 5), and joins
    them again (eq. 6).

    Eq. 5 as printed feeds the *original* second half to the second subnet. Taken literally, the
    block would have no closed-form inverse and its Jacobian would not be triangular, so eq. 8
    could not be evaluated. The RealNVP coupling that the paper cites uses the *already transformed*
    half, and that is what is built here (``GLOWCouplingBlock`` of FrEIA, Ardizzone et al. 2018).

    Args:
        channels: C of the features; at least 2.
        map_height: H of the features.
        map_width: W of the features.
        settings: the flow's shape.

    Raises:
        ConfigError: fewer than 2 channels.
    """

    def __init__(
        self, channels: int, map_height: int, map_width: int, settings: FlowSettings
    ) -> None:
        super().__init__()
        if channels < 2:
            raise ConfigError(
                f"The backbone's layer has {channels} channel(s), but a coupling block splits the "
                "channels in halves and needs at least 2: choose another backbone.layer."
            )
        # A second to import, and most processes only read the settings.
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import GLOWCouplingBlock, PermuteRandom

        self.settings = settings
        self.sequence = SequenceINN(channels, map_height, map_width)
        for index in range(settings.coupling_blocks):
            self.sequence.append(PermuteRandom, seed=settings.permutation_seed * 1000 + index)
            self.sequence.append(
                GLOWCouplingBlock,
                subnet_constructor=_subnet_constructor(settings),
                clamp=settings.clamp,
            )

    def forward(self, y_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map features to the target domain (eq. 2).

        Returns:
            ``z`` (B, C, H, W) and log|det ∂z/∂y| (B,).
        """
        z_BCHW, log_det_B = self.sequence(y_BCHW)
        return z_BCHW, log_det_B

    def inverse(self, z_BCHW: Tensor) -> Tensor:
        """Map target-domain features back: ``inverse(forward(y)[0]) == y`` up to rounding."""
        y_BCHW, _ = self.sequence(z_BCHW, rev=True)
        return cast(Tensor, y_BCHW)


def flow_loss(z_BCHW: Tensor, log_det_B: Tensor) -> Tensor:
    """Negative log-likelihood of eq. 8, mean over the batch, divided by C·H·W.

    The constant C·H·W/2·log(2π) is left out, as in the paper. Computed in float32 whatever the
    inputs are.

    Returns:
        A scalar, in nats per feature value.
    """
    z_BCHW = z_BCHW.float()
    squared_norm_B = z_BCHW.square().flatten(1).sum(1)
    values_per_picture = z_BCHW[0].numel()
    return (squared_norm_B / 2 - log_det_B.float()).mean() / values_per_picture
