"""Fitting the heads of one category on its cached features: flow first, then mapper.

Shapes: N training pictures, B pictures of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from nfbmr.errors import FitError
from nfbmr.model.flow import flow_loss
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import Mapper, mapper_loss
from nfbmr.model.precision import BFLOAT16, autocast
from nfbmr.settings import FitSettings


@dataclass(frozen=True, slots=True)
class EpochLosses:
    """Mean losses of one epoch.

    Attributes:
        stage: ``flow`` or ``mapper``.
        epoch: from 1.
        epochs: how many this stage has.
        losses: by name: ``flow_loss``, or ``source_loss`` and ``target_loss``.
    """

    stage: str
    epoch: int
    epochs: int
    losses: dict[str, float]


Report = Callable[[EpochLosses], None]


@dataclass
class _Stage:
    """One optimisation: which module, with which rate, for how long."""

    name: str
    module: nn.Module
    learning_rate: float
    epochs: int
    loss_names: tuple[str, ...]
    losses: Callable[[Tensor], tuple[Tensor, ...]]
    category: str
    step: int = field(default=0)


def fit_heads(
    y_NCHW: Tensor,
    heads_settings: HeadsSettings,
    fit_settings: FitSettings,
    *,
    category: str,
    device: str | torch.device = "cpu",
    report: Report = lambda _: None,
) -> Heads:
    """Fit standardiser, flow and mapper on the features of normal pictures.

    Args:
        y_NCHW: raw backbone features, any float dtype, on the CPU.
        heads_settings: shapes of the parts.
        fit_settings: how they are fitted.
        category: for messages.
        device: where the fit runs; the features are moved there once.
        report: called after every epoch.

    Returns:
        The heads, in evaluation mode, on the CPU.

    Raises:
        FitError: no pictures, features that are not finite, or a loss that stops being a finite
            number; the message names category, stage and step.
    """
    if y_NCHW.shape[0] == 0:
        raise FitError(f"Category {category!r} has no training features: nothing to fit on.")
    torch.manual_seed(fit_settings.seed)
    _, channels, height, width = y_NCHW.shape
    heads = Heads((channels, height, width), heads_settings)
    if heads_settings.standardize:
        heads.standardizer.fit(y_NCHW)
    heads.to(device).to(memory_format=torch.channels_last)
    y_NCHW = _standardized(heads, y_NCHW, fit_settings, device)
    _fit_flow(heads, y_NCHW, fit_settings, category, report)
    if heads.mapper is not None:
        z_NCHW = _target_features(heads, y_NCHW, fit_settings)
        _fit_mapper(heads.mapper, y_NCHW, z_NCHW, fit_settings, category, report)
    return heads.eval().requires_grad_(False).to("cpu").to(memory_format=torch.contiguous_format)


def _storage_dtype(settings: FitSettings) -> torch.dtype:
    """Of the features that a fit keeps on its device: half the memory where precision allows."""
    return torch.bfloat16 if settings.precision == BFLOAT16 else torch.float32


@torch.no_grad()
def _standardized(
    heads: Heads, y_NCHW: Tensor, settings: FitSettings, device: str | torch.device
) -> Tensor:
    """Standardised features on the device, channels last."""
    dtype = _storage_dtype(settings)
    chunks = [heads.standardizer(chunk.to(device)).to(dtype) for chunk in y_NCHW.split(128)]
    return torch.cat(chunks).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _target_features(heads: Heads, y_NCHW: Tensor, settings: FitSettings) -> Tensor:
    """``z`` of every picture: the flow is frozen while the mapper is fitted (section 3)."""
    heads.flow.eval()
    chunks = []
    for chunk in y_NCHW.split(64):
        with autocast(settings.precision, chunk.device):
            z_BCHW, _ = heads.flow(chunk.float())
        chunks.append(z_BCHW.to(_storage_dtype(settings)))
    return torch.cat(chunks).contiguous(memory_format=torch.channels_last)


def _fit_flow(
    heads: Heads, y_NCHW: Tensor, settings: FitSettings, category: str, report: Report
) -> None:
    """Stage one: the flow on its likelihood (eq. 8)."""

    def losses(index_B: Tensor) -> tuple[Tensor, ...]:
        z_BCHW, log_det_B = heads.flow(y_NCHW[index_B].float())
        return (flow_loss(z_BCHW, log_det_B),)

    stage = _Stage(
        "flow",
        heads.flow,
        settings.flow_learning_rate,
        settings.epochs("flow", len(y_NCHW)),
        ("flow_loss",),
        losses,
        category,
    )
    _run_stage(stage, y_NCHW, settings, report)
    heads.flow.requires_grad_(False)


def _fit_mapper(
    mapper: Mapper,
    y_NCHW: Tensor,
    z_NCHW: Tensor,
    settings: FitSettings,
    category: str,
    report: Report,
) -> None:
    """Stage two: the mapper on both squared errors (eqs. 11-13), backbone and flow frozen."""

    def losses(index_B: Tensor) -> tuple[Tensor, ...]:
        y_BCHW, z_BCHW = y_NCHW[index_B].float(), z_NCHW[index_B].float()
        y_hat_BCHW, z_hat_BCHW = mapper(y_BCHW, z_BCHW)
        return mapper_loss(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW)

    stage = _Stage(
        "mapper",
        mapper,
        settings.mapper_learning_rate,
        settings.epochs("mapper", len(y_NCHW)),
        ("source_loss", "target_loss"),
        losses,
        category,
    )
    _run_stage(stage, y_NCHW, settings, report)


def _run_stage(stage: _Stage, y_NCHW: Tensor, settings: FitSettings, report: Report) -> None:
    """Optimise one module for its epochs and report the mean losses of each."""
    device = y_NCHW.device
    stage.module.train()
    optimizer = torch.optim.Adam(
        stage.module.parameters(),
        lr=stage.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    steps_per_epoch = -(-len(y_NCHW) // settings.batch_size)
    scheduler = _scheduler(optimizer, stage, settings, steps_per_epoch)
    generator = torch.Generator().manual_seed(settings.seed)
    for epoch in range(1, stage.epochs + 1):
        rows = []
        for index_B in _batches(len(y_NCHW), settings.batch_size, generator):
            with autocast(settings.precision, device):
                losses = stage.losses(index_B.to(device))
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            nn.utils.clip_grad_norm_(stage.module.parameters(), settings.gradient_clip_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            rows.append(torch.stack(losses).detach())
        means = _checked_means(torch.stack(rows).cpu(), stage)
        report(EpochLosses(stage.name, epoch, stage.epochs, means))
    stage.module.eval()


def _scheduler(
    optimizer: torch.optim.Optimizer, stage: _Stage, settings: FitSettings, steps_per_epoch: int
) -> LRScheduler | None:
    if settings.schedule == "constant":
        return None
    total_steps = max(2, stage.epochs * steps_per_epoch)
    return OneCycleLR(optimizer, max_lr=stage.learning_rate, total_steps=total_steps)


def _batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(count, generator=generator).split(batch_size)


def _checked_means(losses_SL: Tensor, stage: _Stage) -> dict[str, float]:
    """Mean of each loss over an epoch's steps (S, L); stops the fit at the first bad number."""
    finite_S = torch.isfinite(losses_SL).all(1)
    if not bool(finite_S.all()):
        bad = int((~finite_S).nonzero()[0])
        values = dict(zip(stage.loss_names, losses_SL[bad].tolist(), strict=True))
        raise FitError(
            f"The fit of category {stage.category!r} diverged: {values} at step "
            f"{stage.step + bad + 1} of stage {stage.name!r}. Lower fit.{stage.name}_learning_rate "
            f"(it is {stage.learning_rate:g}), or use fit.precision = 'float32'."
        )
    stage.step += len(losses_SL)
    return dict(zip(stage.loss_names, losses_SL.mean(0).tolist(), strict=True))
