"""Fitting the heads of one category on its cached features: flow first, then mapper.

Shapes: N training pictures, B pictures of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from nfbmr.errors import FitError
from nfbmr.model.flow import flow_loss
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import Mapper, mapper_loss
from nfbmr.model.precision import BFLOAT16, autocast
from nfbmr.settings import FitSettings
from nfbmr.train.data_parallel import Workers
from nfbmr.train.fit_state import StageState

FLOW = "flow"
MAPPER = "mapper"


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


class Keeper(Protocol):
    """Keeps where a fit stands, so that a fit that was killed goes on from there."""

    def load(self) -> StageState | None:
        """Where an earlier attempt stood; None for a fresh start."""

    def wants(self) -> bool:
        """Asked after every epoch: is it time to keep the state?"""

    def keep(self, state: StageState) -> None:
        """Keep it; called after the epoch was reported."""


@dataclass
class _Stage:
    """One optimisation: which module, with which rate, for how long."""

    name: str
    module: nn.Module
    learning_rate: float
    epochs: int
    loss_names: tuple[str, ...]
    losses: Callable[[nn.Module, Tensor], tuple[Tensor, ...]]
    category: str
    step: int = field(default=0)


@dataclass(frozen=True)
class _Run:
    """What all stages of a fit share."""

    heads: Heads
    settings: FitSettings
    category: str
    report: Report
    workers: Workers
    keeper: Keeper | None
    resumed: StageState | None


def fit_heads(
    y_NCHW: Tensor,
    heads_settings: HeadsSettings,
    fit_settings: FitSettings,
    *,
    category: str,
    device: str | torch.device = "cpu",
    report: Report = lambda _: None,
    keeper: Keeper | None = None,
) -> Heads:
    """Fit standardiser, flow and mapper on the features of normal pictures.

    Where ``torch.distributed`` is set up, its workers do every step together (``Workers``).

    Args:
        y_NCHW: raw backbone features, any float dtype, on the CPU; the same on every worker.
        heads_settings: shapes of the parts.
        fit_settings: how they are fitted.
        category: for messages.
        device: where the fit runs; the features are moved there once.
        report: called after every epoch, on the first worker.
        keeper: keeps the state now and then, and has that of an attempt that was cut short: the
            fit goes on from there, and its losses are those of an undisturbed one.

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
    resumed = keeper.load() if keeper is not None else None
    if resumed is not None:
        heads.load_state_dict(resumed.heads)
    heads.to(device).to(memory_format=torch.channels_last)
    run = _Run(heads, fit_settings, category, report, Workers.current(), keeper, resumed)
    y_NCHW = _standardized(heads, y_NCHW, fit_settings, device)
    if resumed is None or resumed.stage == FLOW:
        _fit_flow(run, y_NCHW)
    heads.flow.eval().requires_grad_(False)
    if heads.mapper is not None:
        z_NCHW = _target_features(heads, y_NCHW, fit_settings)
        _fit_mapper(run, heads.mapper, y_NCHW, z_NCHW)
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


def _fit_flow(run: _Run, y_NCHW: Tensor) -> None:
    """Stage one: the flow on its likelihood (eq. 8)."""

    def losses(flow: nn.Module, index_B: Tensor) -> tuple[Tensor, ...]:
        z_BCHW, log_det_B = flow(y_NCHW[index_B].float())
        return (flow_loss(z_BCHW, log_det_B),)

    stage = _Stage(
        FLOW,
        run.heads.flow,
        run.settings.flow_learning_rate,
        run.settings.epochs(FLOW, len(y_NCHW)),
        ("flow_loss",),
        losses,
        run.category,
    )
    _run_stage(stage, y_NCHW, run)


def _fit_mapper(run: _Run, mapper: Mapper, y_NCHW: Tensor, z_NCHW: Tensor) -> None:
    """Stage two: the mapper on both squared errors (eqs. 11-13), backbone and flow frozen."""

    def losses(mapper: nn.Module, index_B: Tensor) -> tuple[Tensor, ...]:
        y_BCHW, z_BCHW = y_NCHW[index_B].float(), z_NCHW[index_B].float()
        y_hat_BCHW, z_hat_BCHW = mapper(y_BCHW, z_BCHW)
        return mapper_loss(y_BCHW, y_hat_BCHW, z_BCHW, z_hat_BCHW)

    stage = _Stage(
        MAPPER,
        mapper,
        run.settings.mapper_learning_rate,
        run.settings.epochs(MAPPER, len(y_NCHW)),
        ("source_loss", "target_loss"),
        losses,
        run.category,
    )
    _run_stage(stage, y_NCHW, run)


def _run_stage(stage: _Stage, y_NCHW: Tensor, run: _Run) -> None:
    """Optimise one module for its epochs and report the mean losses of each."""
    settings, workers, device = run.settings, run.workers, y_NCHW.device
    stage.module.train()
    module = workers.wrapped(stage.module)
    optimizer = torch.optim.Adam(
        stage.module.parameters(),
        lr=stage.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    steps_per_epoch = -(-len(y_NCHW) // settings.batch_size)
    scheduler = _scheduler(optimizer, stage, settings, steps_per_epoch)
    generator = torch.Generator().manual_seed(settings.seed)
    finished = _restore(run.resumed, stage, optimizer, scheduler, generator)
    for epoch in range(finished + 1, stage.epochs + 1):
        rows = []
        for index_B in _batches(len(y_NCHW), settings.batch_size, generator):
            own_B, weight = workers.share(index_B)
            with autocast(settings.precision, device):
                losses = torch.stack(stage.losses(module, own_B.to(device))) * weight
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()
            nn.utils.clip_grad_norm_(stage.module.parameters(), settings.gradient_clip_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            rows.append(losses.detach())
        means = _checked_means(workers.mean(torch.stack(rows)).cpu(), stage)
        if workers.is_first:
            run.report(EpochLosses(stage.name, epoch, stage.epochs, means))
            if run.keeper is not None and run.keeper.wants():
                run.keeper.keep(_state(run.heads, stage, epoch, optimizer, scheduler, generator))
    stage.module.eval()


def _state(
    heads: Heads,
    stage: _Stage,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    generator: torch.Generator,
) -> StageState:
    return StageState(
        stage=stage.name,
        epoch=epoch,
        step=stage.step,
        heads=heads.state_dict(),
        optimizer=optimizer.state_dict(),
        scheduler=None if scheduler is None else scheduler.state_dict(),
        generator=generator.get_state(),
    )


def _restore(
    state: StageState | None,
    stage: _Stage,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    generator: torch.Generator,
) -> int:
    """Put optimiser, schedule and order of the pictures where they were; the finished epochs."""
    if state is None or state.stage != stage.name:
        return 0
    optimizer.load_state_dict(state.optimizer)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # Fused Adam wants the parameter's memory format.
                values[name] = torch.empty_like(parameter).copy_(value)
    if scheduler is not None and state.scheduler is not None:
        scheduler.load_state_dict(state.scheduler)
    generator.set_state(state.generator)
    stage.step = state.step
    return state.epoch


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
