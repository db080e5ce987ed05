"""Fitting and registering the categories of a campaign's group, as far as the night left them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow.fs
from ray.train import Checkpoint

from nfbmr import storage
from nfbmr.errors import STORE_FAULTS, StoreError
from nfbmr.progress import Progress
from nfbmr.train.background import Background
from nfbmr.train.campaign_result import NOT_STARTED, CategoryResult
from nfbmr.train.campaign_state import Campaign
from nfbmr.train.category_finish import finish, fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.category_tasks import pictures_of
from nfbmr.train.features import compute_features
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_capacity import FitShare, within
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


def rows_of_tonight(
    unchanged: Sequence[CategoryResult], campaign: Campaign
) -> list[CategoryResult]:
    """The rows of unchanged categories; of those that this very night made champion, its own.

    Args:
        unchanged: rows of categories whose champion would come out again.
        campaign: whose night may have been cut short after it finished some of them.
    """
    noted = {(row.category, row.version): (fit, row) for fit, row in _noted(campaign)}
    rows = []
    for row in unchanged:
        fit, own = noted.get((row.category, row.version), ("", row))
        rows.append(own)
        if fit:
            campaign.fits[row.category] = fit
    return rows


def rows_not_reached(categories: Iterable[str], campaign: Campaign) -> list[CategoryResult]:
    """The rows of categories that may not begin any more; of finished ones as they were noted.

    Args:
        categories: of which nobody has looked whether their pictures are still the same.
        campaign: whose night may have been cut short after it finished some of them.
    """
    noted = {row.category: row for _, row in _noted(campaign)}
    return [noted.get(name) or campaign.not_reached(name) for name in categories]


def _noted(campaign: Campaign) -> list[tuple[str, CategoryResult]]:
    """Fits and rows of what a night that was cut short had finished."""
    read: dict[str, CategoryResult | None] = {}
    if campaign.night.is_resumed:
        with tolerated(campaign.progress, "What the night has finished could not be looked up"):
            read = {fit: _row(values) for fit, values in campaign.night.results().items()}
    return [(fit, row) for fit, row in read.items() if row is not None]


def _finished(night: Night, task: CategoryTask) -> CategoryResult | None:
    try:
        values = night.result(fit_of(task, night))
    except PermissionError:
        if "://" in night.folder:
            raise
        return None  # Somebody else's file on this disk: the category is fitted again.
    return None if values is None else _row(values)


def _row(values: dict[str, Any]) -> CategoryResult | None:
    """A row that was noted earlier, which says so; None for one that cannot be read."""
    try:
        row = CategoryResult.from_dict(values)
    except (TypeError, ValueError, KeyError):  # Of another version of nfbmr, or damaged.
        return None
    when = f"at {row.finished_at}" if row.finished_at else "earlier"
    return replace(row, decision=f"finished {when}: {row.decision}")


def _fitted(night: Night, task: CategoryTask) -> Fitted | None:
    """A detector that was fitted, but not registered any more before the campaign was cut short."""
    noted = night.fitted(fit_of(task, night))
    if noted is None:
        return None
    try:
        outcome = outcome_of(task.category, checkpoint_at(str(noted["checkpoint"])))
    except (*STORE_FAULTS, StoreError, ValueError, KeyError, TypeError):
        return None
    return outcome if isinstance(outcome, Fitted) else None


def checkpoint_at(uri: str) -> Checkpoint:
    """A checkpoint of Ray Train's by its address, which may have any signs behind the bucket.

    Args:
        uri: an absolute path, or an address such as ``s3://bucket/…``, nothing in it quoted.

    Raises:
        ValueError: pyarrow knows no such file system.
    """
    protocol, separator, path = uri.partition("://")
    if not separator:
        return Checkpoint(uri, filesystem=pyarrow.fs.LocalFileSystem())
    bucket, _, name = path.partition("/")
    file_system, root = pyarrow.fs.FileSystem.from_uri(f"{protocol}://{bucket}")
    return Checkpoint(storage.join(root, name), filesystem=file_system)


def _finish(campaign: Campaign, outcome: Outcome) -> CategoryResult:
    task = campaign.tasks[outcome.category]
    keep_in = campaign.paths.unregistered
    result, has_more_to_do = finish(outcome, task, campaign.night, campaign.registry, keep_in)
    if result.outcome == NOT_STARTED:
        result.decision = campaign.not_reached(result.category).decision
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


def _repair(
    campaign: Campaign, splits: Mapping[str, Split], task: CategoryTask, share: FitShare
) -> None:
    """Look into every entry of a category, and compute anew what is damaged or gone.

    In the place of the fit that waits for it: all the others stay taken while fits are left.
    """
    pictures = pictures_of(splits[task.category])
    settings, run = campaign.config.backbone, within(share, campaign.config.run)
    index = compute_features(
        pictures,
        settings,
        campaign.paths.features,
        run,
        distrust=True,
        say=campaign.progress.say,
    )
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
