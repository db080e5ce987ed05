"""Fitting and registering the categories of a campaign's group, as far as the night left them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ray.train import Checkpoint

from nfbmr import storage
from nfbmr.errors import STORE_FAULTS, StoreError
from nfbmr.progress import Progress
from nfbmr.train.background import Background
from nfbmr.train.campaign_result import CategoryResult
from nfbmr.train.campaign_state import Campaign
from nfbmr.train.category_finish import finish, fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.category_tasks import pictures_of
from nfbmr.train.features import compute_features
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_queue import QueueHooks, fit_categories
from nfbmr.train.night import Night, tolerated
from nfbmr.train.ray_fit import Fitted, Outcome, outcome_of
from nfbmr.train.split import Split

_REGISTERING_AT_ONCE = 4
_WORST_SAID = 3


def fit_and_register(campaign: Campaign, splits: Mapping[str, Split]) -> list[CategoryResult]:
    """Fit and register, of the group at work, what this night has not finished yet.

    Args:
        campaign: with the group's tasks.
        splits: the group's pictures, from which damaged features are computed anew.

    Returns:
        A row per category, those of finished ones as they were noted.
    """
    night, progress, tasks = campaign.night, campaign.progress, campaign.tasks
    results = {name: row for name, task in tasks.items() if (row := _finished(night, task))}
    fitted = {n: f for n, t in tasks.items() if n not in results and (f := _fitted(night, t))}
    if night.is_resumed:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(night.started_at))
        progress.say(
            f"Going on with the campaign that began at {began}: {len(results)} of {len(tasks)} "
            f"categories are finished, {len(fitted)} more are fitted"
        )
    registering: Background[CategoryResult] = Background(_REGISTERING_AT_ONCE)
    for waiting in fitted.values():
        registering.run(partial(_finish, campaign, waiting))
    left = [task for name, task in tasks.items() if name not in results and name not in fitted]
    hooks = QueueHooks(
        epoch=_epoch_lines(progress),
        may_start=campaign.may_start,
        repair=partial(_repair, campaign, splits),
        fitted=partial(_note_fitted, campaign),
    )
    ordered = sorted(
        left, key=lambda t: (t.category not in night.waited_for, -len(t.fit_entries), t.category)
    )
    for outcome in fit_categories(ordered, campaign.config.run, night.runs, hooks):
        registering.run(partial(_finish, campaign, outcome))
        results |= _said(registering.finished(), campaign)
    results |= _said(registering.finished(wait=True), campaign)
    return list(results.values())


def _finished(night: Night, task: CategoryTask) -> CategoryResult | None:
    try:
        row = night.result(fit_of(task, night))
        return None if row is None else CategoryResult.from_dict(row)
    except PermissionError:
        if "://" in night.folder:
            raise
        return None  # Somebody else's file on this disk: the category is fitted again.
    except (TypeError, ValueError, KeyError):  # A row of another version of nfbmr, or damaged.
        return None


def _fitted(night: Night, task: CategoryTask) -> Fitted | None:
    """A detector that was fitted, but not registered any more before the campaign was cut short."""
    noted = night.fitted(fit_of(task, night))
    if noted is None:
        return None
    try:
        outcome = outcome_of(task.category, Checkpoint(noted["checkpoint"]))
    except (*STORE_FAULTS, StoreError, ValueError, KeyError, TypeError):
        return None
    return outcome if isinstance(outcome, Fitted) else None


def _finish(campaign: Campaign, outcome: Outcome) -> CategoryResult:
    task = campaign.tasks[outcome.category]
    keep_in = campaign.paths.unregistered
    result, has_more_to_do = finish(outcome, task, campaign.night, campaign.registry, keep_in)
    if has_more_to_do:  # Several threads are here at once: nothing is read and written back.
        campaign.is_open = True
    return result


def _note_fitted(campaign: Campaign, task: CategoryTask, run: str, outcome: Fitted) -> None:
    night = campaign.night
    checkpoint = storage.join(night.runs, run, outcome.checkpoint.path.rpartition("/")[2])
    with tolerated(
        campaign.progress, f"The night could not remember that {task.category} is fitted"
    ):
        night.note_fitted(fit_of(task, night), run, checkpoint)


def _repair(campaign: Campaign, splits: Mapping[str, Split], task: CategoryTask) -> None:
    """Look into every entry of a category, and compute anew what is damaged or gone."""
    pictures = pictures_of(splits[task.category])
    settings, run = campaign.config.backbone, campaign.config.run
    index = compute_features(pictures, settings, campaign.paths.features, run, distrust=True)
    campaign.progress.say(
        f"{task.category}: {index.computed} features in the cache were damaged or gone; they were "
        "computed anew"
    )


def _said(results: Sequence[CategoryResult], campaign: Campaign) -> dict[str, CategoryResult]:
    """Say what became of categories."""
    for result in results:
        campaign.progress.say(f"{result.category}: {result.outcome}; {result.decision}")
        worst = [f"{w['uri']} ({w['deviation']:.1f})" for w in result.worst[:_WORST_SAID]]
        if worst:
            campaign.progress.say(
                f"{result.category}: training pictures that fit worst (robust standard deviations "
                f"from the median): {', '.join(worst)}"
            )
    return {result.category: result for result in results}


def _epoch_lines(progress: Progress) -> Callable[[str, EpochLosses], None]:
    """A line about every fifth of a stage, so that a log stays readable."""

    def say(category: str, epoch: EpochLosses) -> None:
        every = max(1, epoch.epochs // 5)
        if epoch.epoch % every == 0 or epoch.epoch == epoch.epochs:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
            progress.say(f"{category}: {epoch.stage} epoch {epoch.epoch}/{epoch.epochs}, {losses}")

    return say
