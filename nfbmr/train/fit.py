"""Fitting the heads of one category on its cached features: flow first, then mapper.

Shapes: N training pictures, B pictures of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfbmr.errors import FitError
from nfbmr.fit_settings import FitSettings
from nfbmr.model.flow import flow_loss
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import mapper_loss
from nfbmr.train.data_parallel import Workers
from nfbmr.train.stage import EpochLosses, FitRun, Keeper, Report, Stage, run_stage
from nfbmr.train.training_features import InMemory, RawFeatures, chunks, training_features

__all__ = ["FLOW", "MAPPER", "EpochLosses", "Keeper", "Report", "fit_heads"]

FLOW = "flow"
MAPPER = "mapper"
_STATISTICS_CHUNK = 256


def fit_heads(
    features: Tensor | RawFeatures,
    heads_settings: HeadsSettings,
    fit_settings: FitSettings,
    *,
    category: str,
    device: str | torch.device = "cpu",
    report: Report = lambda _: None,
    keeper: Keeper | None = None,
    fitted_flow: Heads | None = None,
    workers: Workers | None = None,
    memory_share: float = 1.0,
) -> Heads:
    """Fit standardiser, flow and mapper on the features of normal pictures.

    Where ``torch.distributed`` is set up, its workers do every step together (``Workers``).

    Args:
        features: raw backbone features (N, C, H, W), any float dtype, on the CPU or in the cache;
            the same on every worker.
        heads_settings: shapes of the parts.
        fit_settings: how they are fitted.
        category: for messages.
        device: where the fit runs; the features are moved there once, or batch by batch.
        report: called after every epoch, on the first worker.
        keeper: keeps the state now and then, and has that of an attempt that was cut short: the
            fit goes on from there, and its losses are those of an undisturbed one.
        fitted_flow: heads fitted on the same features with the same settings of flow and fit:
            their flow is taken and only the mapper is fitted, with the same result.
        workers: that fit together; those of ``torch.distributed`` by default. A fit that only one
            of them makes is given ``Workers()``, or it would wait for the others for ever.
        memory_share: of the device that is this fit's; others run beside it.

    Returns:
        The heads, in evaluation mode, on the CPU.

    Raises:
        FitError: no pictures, features that are not finite, or a loss that stops being a finite
            number; the message names category, stage and step.
    """
    raw = InMemory(features) if isinstance(features, Tensor) else features
    count, channels, height, width = raw.shape
    if count == 0:
        raise FitError(f"Category {category!r} has no training features: nothing to fit on.")
    device = torch.device(device)
    torch.manual_seed(fit_settings.seed)
    heads = Heads((channels, height, width), heads_settings)
    if heads_settings.standardize:
        _standardize(heads, raw, category)
    resumed = keeper.load() if keeper is not None else None
    if resumed is not None:
        heads.load_state_dict(resumed.heads)
    if fitted_flow is not None:
        heads.flow.load_state_dict(fitted_flow.flow.state_dict())
    heads.to(device).to(memory_format=torch.channels_last)
    own = training_features(
        raw,
        heads.standardizer,
        fit_settings,
        device,
        with_targets=heads.mapper is not None,
        memory_share=memory_share,
    )
    workers = workers or Workers.current()
    run = FitRun(heads, fit_settings, category, device, own, report, workers, keeper, resumed)
    if fitted_flow is None and (resumed is None or resumed.stage == FLOW):
        run_stage(_flow_stage(heads, fit_settings, category), run)
    heads.flow.eval().requires_grad_(False)
    if heads.mapper is not None:
        own.set_targets(heads.flow)
        run_stage(_mapper_stage(heads.mapper, fit_settings, category), run)
    return heads.eval().requires_grad_(False).to("cpu").to(memory_format=torch.contiguous_format)


def _standardize(heads: Heads, raw: RawFeatures, category: str) -> None:
    try:
        heads.standardizer.fit_chunks(lambda: chunks(raw, _STATISTICS_CHUNK))
    except FitError as error:
        raise type(error)(f"Category {category!r} cannot be standardised: {error}") from error


def _flow_stage(heads: Heads, settings: FitSettings, category: str) -> Stage:
    """Stage one: the flow on its likelihood (eq. 8)."""

    def losses(flow: nn.Module, y_BCHW: Tensor) -> tuple[Tensor, ...]:
        z_BCHW, log_det_B = flow(y_BCHW)
        return (flow_loss(z_BCHW, log_det_B),)

    return Stage(FLOW, heads.flow, settings.flow_learning_rate, ("flow_loss",), losses, category)


def _mapper_stage(mapper: nn.Module, settings: FitSettings, category: str) -> Stage:
    """Stage two: the mapper on both squared errors (eqs. 11-13), backbone and flow frozen."""

    def losses(mapper: nn.Module, y_BCHW: Tensor, z_BCHW: Tensor) -> tuple[Tensor, ...]:
        y_hat_BCHW, z_hat_BCHW = mapper(y_BCHW, z_BCHW)
        return mapper_loss(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW)

    names = ("source_loss", "target_loss")
    return Stage(MAPPER, mapper, settings.mapper_learning_rate, names, losses, category)
