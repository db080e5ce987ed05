"""One optimisation of a fit, from its first epoch or from where it was cut short to its last.

Shapes: N training pictures, B pictures of a batch, S steps of an epoch, L losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from nfbmr import plain_values
from nfbmr.errors import FitError
from nfbmr.fit_settings import FitSettings
from nfbmr.model.precision import autocast, exact_convolutions
from nfbmr.train.compiling import compiled
from nfbmr.train.data_parallel import Workers
from nfbmr.train.early_stop import EarlyStop
from nfbmr.train.fit_state import StageState
from nfbmr.train.training_features import TrainingFeatures


@dataclass(frozen=True, slots=True)
class EpochLosses:
    """Mean losses of one epoch.

    Attributes:
        stage: ``flow`` or ``mapper``.
        epoch: from 1.
        epochs: how many this stage has, if it does not end early.
        losses: by name: ``flow_loss``, or ``source_loss`` and ``target_loss``; where the fit may
            end early also ``flow_validation_loss`` or ``mapper_validation_loss``.
    """

    stage: str
    epoch: int
    epochs: int
    losses: dict[str, float]

    @classmethod
    def from_dict(cls, row: Any) -> EpochLosses:
        """An epoch of a JSON file; raises as ``plain_values`` does, or ``KeyError``."""
        values = plain_values.mapping(row)
        return cls(
            stage=plain_values.text(values["stage"]),
            epoch=plain_values.count(values["epoch"]),
            epochs=plain_values.count(values["epochs"]),
            losses=plain_values.numbers(values["losses"]),
        )


Report = Callable[[EpochLosses], None]


class Keeper(Protocol):
    """Keeps where a fit stands, so that a fit that was killed goes on from there."""

    def load(self) -> StageState | None:
        """Where an earlier attempt stood; None for a fresh start."""

    def wants(self) -> bool:
        """Asked after every epoch: is it time to keep the state?"""

    def keep(self, state: StageState) -> None:
        """Keep it; called after the epoch was reported."""


Losses = Callable[..., tuple[Tensor, ...]]


_BLOW_UP = 10.0
"""A loss that is above the first epoch's by so many times that one's size does not come back."""


@dataclass
class Stage:
    """One optimisation: which module, with which rate, for how long.

    Attributes:
        name: ``flow`` or ``mapper``.
        module: what is optimised.
        learning_rate: constant, or the peak of the one-cycle schedule.
        loss_names: of the losses, whose sum is minimised.
        losses: of (module, *features of a batch).
        category: for messages.
        step: finished steps.
        first_loss: sum of the losses over the first epoch that was seen.
    """

    name: str
    module: nn.Module
    learning_rate: float
    loss_names: tuple[str, ...]
    losses: Losses
    category: str
    step: int = field(default=0)
    first_loss: float | None = None


@dataclass(frozen=True)
class FitRun:
    """What all stages of a fit share.

    Attributes:
        heads: of which a stage optimises a part; their state is what is kept.
        settings: of the fit.
        category: for messages.
        device: where it runs.
        features: of the pictures to fit on.
        report: called after every epoch, on the first worker.
        workers: that do every step together.
        keeper: keeps the state now and then.
        resumed: where an earlier attempt stood.
    """

    heads: nn.Module
    settings: FitSettings
    category: str
    device: torch.device
    features: TrainingFeatures
    report: Report
    workers: Workers
    keeper: Keeper | None
    resumed: StageState | None


@dataclass
class _Optimisation:
    """What changes with every step, besides the module."""

    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    generator: torch.Generator
    early_stop: EarlyStop


def run_stage(stage: Stage, run: FitRun) -> None:
    """Optimise one module for its epochs and report the mean losses of each.

    Raises:
        FitError: a loss, or in the end a parameter, is not a finite number.
    """
    learned, watched = _pictures(run)
    epochs = run.settings.epochs(stage.name, len(learned))
    module = run.workers.wrapped(stage.module)
    losses = compiled(stage.losses, run.device) if run.settings.compile else stage.losses
    state = _start(stage, run, epochs, len(learned))
    finished = _restore(run.resumed, stage, state)
    for epoch in range(finished + 1, epochs + 1):
        if state.early_stop.is_over:
            break
        means = _epoch(stage, run, state, module, losses, learned)
        if state.early_stop.patience:
            loss = _validation_loss(stage, run, watched)
            state.early_stop.note(loss, stage.module)
            means[f"{stage.name}_validation_loss"] = loss
        if run.workers.is_first:
            run.report(EpochLosses(stage.name, epoch, epochs, means))
            if run.keeper is not None and run.keeper.wants():
                run.keeper.keep(_state(run.heads, stage, epoch, state))
    state.early_stop.restore_best(stage.module)
    stage.module.eval()
    _check_parameters(stage)


def _pictures(run: FitRun) -> tuple[Tensor, Tensor]:
    """Indices of the pictures to learn from, and of those that only say when to end."""
    count = run.features.count
    watched = 0
    if run.settings.early_stop_patience and count > 1:
        watched = min(count - 1, math.ceil(run.settings.early_stop_share * count))
    everything = torch.arange(count)
    return everything[: count - watched], everything[count - watched :]


def _start(stage: Stage, run: FitRun, epochs: int, pictures: int) -> _Optimisation:
    optimizer = torch.optim.Adam(
        stage.module.parameters(),
        lr=stage.learning_rate,
        weight_decay=run.settings.weight_decay,
        fused=True,
    )
    steps = epochs * -(-pictures // run.settings.batch_size)
    return _Optimisation(
        optimizer,
        learning_rate_schedule(optimizer, stage, run.settings, steps),
        torch.Generator().manual_seed(run.settings.seed),
        EarlyStop(run.settings.early_stop_patience),
    )


def _epoch(
    stage: Stage,
    run: FitRun,
    state: _Optimisation,
    module: nn.Module,
    losses_of: Losses,
    learned_N: Tensor,
) -> dict[str, float]:
    """One pass over the pictures; the mean of each loss."""
    settings, workers = run.settings, run.workers
    stage.module.train()
    order = _batches(learned_N, settings.batch_size, state.generator)
    shares = [workers.share(index_B) for index_B in order]
    batches = run.features.batches([own_B for own_B, _ in shares])
    rows = []
    for (_, weight), features in zip(shares, batches, strict=True):
        with autocast(settings.precision, run.device):
            losses_L = torch.stack(losses_of(module, *features)) * weight
        state.optimizer.zero_grad(set_to_none=True)
        with exact_convolutions(run.device):
            losses_L.sum().backward()
        if settings.gradient_clip_norm > 0:
            nn.utils.clip_grad_norm_(stage.module.parameters(), settings.gradient_clip_norm)
        state.optimizer.step()
        if state.scheduler is not None:
            state.scheduler.step()
        rows.append(losses_L.detach())
    return checked_means(workers.mean(torch.stack(rows)).cpu(), stage)


@torch.no_grad()
def _validation_loss(stage: Stage, run: FitRun, watched_N: Tensor) -> float:
    """The sum of the losses, averaged over pictures that are not learned from.

    And over the workers, whose roundings differ: all of them leave the stage in the same epoch.
    """
    stage.module.eval()
    parts = watched_N.split(run.settings.batch_size)
    total = 0.0
    for index_B, features in zip(parts, run.features.batches(parts), strict=True):
        with autocast(run.settings.precision, run.device):
            losses = torch.stack(stage.losses(stage.module, *features)).sum()
        total += float(losses) * len(index_B)
    mean = torch.tensor(total / len(watched_N), dtype=torch.float64, device=run.device)
    return float(run.workers.mean(mean))


def _state(heads: nn.Module, stage: Stage, epoch: int, state: _Optimisation) -> StageState:
    return StageState(
        stage=stage.name,
        epoch=epoch,
        step=stage.step,
        heads=heads.state_dict(),
        optimizer=state.optimizer.state_dict(),
        scheduler=None if state.scheduler is None else state.scheduler.state_dict(),
        generator=state.generator.get_state(),
        best=dict(state.early_stop.best),
        best_loss=state.early_stop.best_loss,
        epochs_since_best=state.early_stop.epochs_since_best,
        notes={"first_loss": stage.first_loss},
    )


def _restore(kept: StageState | None, stage: Stage, state: _Optimisation) -> int:
    """Put optimiser, schedule and order of the pictures where they were; the finished epochs."""
    if kept is None or kept.stage != stage.name:
        return 0
    state.optimizer.load_state_dict(kept.optimizer)
    for parameter, values in state.optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # Fused Adam wants the parameter's memory format.
                values[name] = torch.empty_like(parameter).copy_(value)
    if state.scheduler is not None and kept.scheduler is not None:
        state.scheduler.load_state_dict(kept.scheduler)
    state.generator.set_state(kept.generator)
    state.early_stop.best = dict(kept.best)
    state.early_stop.best_loss = kept.best_loss
    state.early_stop.epochs_since_best = kept.epochs_since_best
    stage.step = kept.step
    first_loss = kept.notes.get("first_loss")
    stage.first_loss = first_loss if isinstance(first_loss, float) else None
    return kept.epoch


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, stage: Stage, settings: FitSettings, steps: int
) -> LRScheduler | None:
    """How the rate changes with the steps; None where it stays."""
    if settings.schedule == "constant":
        return None
    return OneCycleLR(optimizer, max_lr=stage.learning_rate, total_steps=max(2, steps))


def _batches(index_N: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    order_N = index_N[torch.randperm(len(index_N), generator=generator)]
    return list(order_N.split(batch_size))


def checked_means(losses_SL: Tensor, stage: Stage) -> dict[str, float]:
    """Mean of each loss over an epoch's steps (S, L); stops the fit at the first bad number."""
    finite_S = torch.isfinite(losses_SL).all(1)
    if not bool(finite_S.all()):
        bad = int((~finite_S).nonzero()[0])
        values = dict(zip(stage.loss_names, losses_SL[bad].tolist(), strict=True))
        raise _diverged(stage, f"{values}", stage.step + bad + 1)
    stage.step += len(losses_SL)
    means = dict(zip(stage.loss_names, losses_SL.mean(0).tolist(), strict=True))
    loss = sum(means.values())
    if stage.first_loss is None:
        stage.first_loss = loss
    if loss - stage.first_loss > _BLOW_UP * (abs(stage.first_loss) + 1):
        raise _diverged(
            stage, f"{means}, after {stage.first_loss:g} in the first epoch", stage.step
        )
    return means


def _check_parameters(stage: Stage) -> None:
    """Losses are taken before a step: what the last one made of the module shows here alone.

    Raises:
        FitError: a parameter is not finite.
    """
    bad = [n for n, p in stage.module.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise _diverged(stage, f"{bad[0]} is not finite", stage.step)


def _diverged(stage: Stage, losses: str, step: int) -> FitError:
    return FitError(
        f"The fit of category {stage.category!r} diverged: {losses} at step {step} of stage "
        f"{stage.name!r}. Lower fit.{stage.name}_learning_rate (it is {stage.learning_rate:g}), or "
        "use fit.precision = 'float32'."
    )
