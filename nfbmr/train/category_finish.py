"""What becomes of a fit that has ended: registered, judged, remembered; or a sentence why not."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nfbmr.errors import STORE_FAULTS, NfbmrError, RegistryError, StoreError
from nfbmr.registry import Registry
from nfbmr.train.campaign_result import (
    FAILED,
    NOT_STARTED,
    REGISTERED,
    CategoryResult,
    not_reached,
)
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.fit import EpochLosses
from nfbmr.train.night import Night
from nfbmr.train.ray_fit import Cause, Failed, Fitted, NotStarted, Outcome
from nfbmr.train.registration import last_losses, register


def fit_of(task: CategoryTask, night: Night) -> str:
    """The name of a category's files in a night."""
    return night.fit_name(task.category, task.fingerprint)


def finish(
    outcome: Outcome, task: CategoryTask, night: Night, registry: Registry, keep_in: str
) -> tuple[CategoryResult, bool]:
    """Register and judge what was fitted, and remember that the category is finished.

    Args:
        outcome: of the fit.
        task: that was fitted.
        night: which remembers it.
        registry: where it is registered.
        keep_in: where a detector is kept that the registry does not take.

    Returns:
        The category's row, and whether the same command could go on with the category.
    """
    result = CategoryResult(
        outcome.category,
        FAILED,
        pictures=len(task.fit_entries),
        held_out=len(task.held_out_entries),
        unreadable=task.lineage["pictures_unreadable"],
    )
    if isinstance(outcome, NotStarted):
        result.outcome = NOT_STARTED
        result.decision = not_reached(task.category).decision
        return result, True
    if isinstance(outcome, Failed):
        result.decision = outcome.error
        result.seconds = outcome.seconds
        _note_losses(result, outcome.losses)
        return result, outcome.cause in (Cause.LOST, Cause.MEMORY, Cause.FEATURES)
    _describe(result, outcome)
    try:
        version, decision = register(outcome, task, registry, keep_in)
    except RegistryError as error:
        result.decision = str(error)
        return result, True
    except Exception as error:  # Whatever MLflow raises is this category's failure alone.
        is_ours = isinstance(error, NfbmrError)
        what = f"Registering {task.category!r} failed: {type(error).__name__}: {error}"
        result.decision = str(error) if is_ours else what
        if not isinstance(error, (*STORE_FAULTS, StoreError)):
            _forget_fitted(night, task, result)
        return result, True
    result.outcome = REGISTERED
    result.version = version.version
    verdict = "champion" if decision.promote else "challenger"
    result.decision = f"version {version.version} is {verdict}: {decision.reason}"
    result.promoted, result.gate = decision.promote, dict(decision.numbers)
    result.finished_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        night.note_result(fit_of(task, night), result.as_dict())
    except (
        *STORE_FAULTS,
        StoreError,
    ) as error:  # It is registered; only a night that goes on fits it again.
        result.decision += f" (the night could not remember it: {error})"
        return result, True
    return result, False


def _forget_fitted(night: Night, task: CategoryTask, result: CategoryResult) -> None:
    """What was fitted cannot be registered: going on must not try the same again."""
    try:
        night.forget_fitted(fit_of(task, night))
    except (*STORE_FAULTS, StoreError) as error:
        result.decision += f" (and the night could not forget it: {error})"


def _describe(result: CategoryResult, fitted: Fitted) -> None:
    """The numbers of a fit."""
    report = fitted.report
    _note_losses(result, report.losses)
    result.aggregate = report.aggregate
    result.synthetic_auroc = report.synthetic_aurocs.get(report.aggregate)
    result.metrics = {
        "threshold": report.threshold,
        "p_value_floor": report.p_value_floor,
        **{f"synthetic_auroc_{name}": value for name, value in report.synthetic_aurocs.items()},
    }
    result.worst = [picture.as_dict() for picture in report.worst]
    result.trimmed = report.trimmed
    result.seconds = report.seconds


def _note_losses(result: CategoryResult, epochs: Iterable[EpochLosses]) -> None:
    last = last_losses(epochs)
    result.flow_loss = last.get("flow_loss")
    result.mapper_loss = last.get("mapper_loss")
