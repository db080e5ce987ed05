"""The fit as the paper describes it, written down plainly: the backbone runs in every epoch.

Nothing is kept between epochs. It shares the networks and the losses with ``nfbmr.train.fit`` but
none of its loop, so that it is also a check of it: the same seed gives the same losses.

Shapes: B pictures of a batch, H, W height and width, C channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.fit_settings import FitSettings
from nfbmr.model.backbone import Backbone
from nfbmr.model.flow import flow_loss
from nfbmr.model.heads import Heads, HeadsSettings, Standardizer
from nfbmr.model.mapper import mapper_loss
from nfbmr.model.precision import exact_convolutions


class StraightLoop:
    """Flow, then mapper: read, decode, backbone, one Adam step; float32, constant learning rates.

    Args:
        uris: encoded pictures.
        backbone: frozen, on the device that computes.
        heads_settings: shapes of the parts.
        settings: epochs, batch size, learning rates and seed; schedule and precision are not
            looked at.
        fitted_standardizer: whose statistics are taken, so that no epoch is spent on them.

    Attributes:
        heads: what is fitted.
        losses: mean per epoch: of the flow's stage, then of the mapper's (source plus target).
        epoch_s: seconds per epoch by stage, ``flow`` and ``mapper``.
    """

    def __init__(
        self,
        uris: Sequence[str],
        backbone: Backbone,
        heads_settings: HeadsSettings,
        settings: FitSettings,
        fitted_standardizer: Standardizer,
    ) -> None:
        self.uris = uris
        self.backbone = backbone
        self.settings = settings
        channels, height, width = features(backbone, uris[:1]).shape[1:]
        torch.manual_seed(settings.seed)
        self.heads = Heads((channels, height, width), heads_settings)
        self.heads.standardizer.load_state_dict(fitted_standardizer.state_dict())
        self.heads.to(next(backbone.parameters()).device)
        self.losses: list[float] = []
        self.epoch_s: dict[str, list[float]] = {"flow": [], "mapper": []}

    def fit(self, note: Callable[[str], None] = lambda _: None) -> Heads:
        """Run all epochs; returns the heads in evaluation mode.

        Args:
            note: told of every epoch.
        """
        rates = (self.settings.flow_learning_rate, self.settings.mapper_learning_rate)
        epochs = (self.settings.flow_epochs, self.settings.mapper_epochs)
        flow, mapper = self.heads.flow, self.heads.mapper
        with exact_convolutions(next(self.backbone.parameters()).device):
            self._stage("flow", flow, rates[0], epochs[0], self._flow_loss, note)
            if mapper is not None:
                self._stage("mapper", mapper, rates[1], epochs[1], self._mapper_loss, note)
        return self.heads.eval()

    def _flow_loss(self, y_BCHW: Tensor) -> Tensor:
        return flow_loss(*self.heads.flow(y_BCHW))

    def _mapper_loss(self, y_BCHW: Tensor) -> Tensor:
        assert self.heads.mapper is not None
        with torch.no_grad():
            z_BCHW, _ = self.heads.flow(y_BCHW)
        y_hat_BCHW, z_hat_BCHW = self.heads.mapper(y_BCHW, z_BCHW)
        source, target = mapper_loss(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW)
        return source + target

    def _stage(
        self,
        name: str,
        module: nn.Module,
        learning_rate: float,
        epochs: int,
        loss_of: Callable[[Tensor], Tensor],
        note: Callable[[str], None],
    ) -> None:
        optimizer = torch.optim.Adam(
            module.parameters(), lr=learning_rate, weight_decay=self.settings.weight_decay
        )
        generator = torch.Generator().manual_seed(self.settings.seed)
        for epoch in range(1, epochs + 1):
            started = time.monotonic()
            losses = []
            order_N = torch.randperm(len(self.uris), generator=generator)
            for index_B in order_N.split(self.settings.batch_size):
                y_BCHW = features(self.backbone, [self.uris[int(i)] for i in index_B])
                loss = loss_of(self.heads.standardizer(y_BCHW))
                optimizer.zero_grad()
                loss.backward()
                if self.settings.gradient_clip_norm > 0:
                    nn.utils.clip_grad_norm_(module.parameters(), self.settings.gradient_clip_norm)
                optimizer.step()
                losses.append(loss.item())
            self.losses.append(float(np.mean(losses)))
            seconds = time.monotonic() - started
            self.epoch_s[name].append(seconds)
            note(f"straightforward loop: {name} epoch {epoch}/{epochs}, {seconds:.1f} s")


@torch.no_grad()
def features(backbone: Backbone, uris: Sequence[str]) -> Tensor:
    """Raw features (B, C, H, W) of encoded pictures, from their bytes on."""
    settings = backbone.settings
    pixels_BHWC = np.stack(
        [
            decode_and_resize(
                read_bytes(uri), settings.image_size_px, settings.resampling
            ).pixels_HWC
            for uri in uris
        ]
    )
    device = next(backbone.parameters()).device
    y_BCHW: Tensor = backbone(torch.from_numpy(pixels_BHWC).to(device)).float()
    return y_BCHW
