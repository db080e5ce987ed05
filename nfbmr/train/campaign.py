"""Training all categories of a data root: features, fits, registry, promotion, one table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ray.train import Checkpoint

from nfbmr import storage
from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import STORE_FAULTS, StoreError, WeightsError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.store_faults import store_sentences
from nfbmr.train.background import Background
from nfbmr.train.campaign_features import CampaignFeatures, groups_of
from nfbmr.train.campaign_result import FAILED, NOT_STARTED, CategoryResult, not_reached
from nfbmr.train.category_finish import finish, fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.category_tasks import Preparation, make_tasks, pictures_of, split_categories
from nfbmr.train.features import compute_features
from nfbmr.train.fingerprints import fingerprint
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_queue import QueueHooks, fit_categories
from nfbmr.train.night import Night, open_night, tolerated
from nfbmr.train.night_lease import Lease, held
from nfbmr.train.ray_fit import Fitted, Outcome, outcome_of
from nfbmr.train.split import Split
from nfbmr.train.unchanged import unchanged_categories

__all__ = ["CampaignOptions", "CampaignPaths", "CategoryResult", "run_campaign"]

_REGISTERING_AT_ONCE = 4
_WORST_SAID = 3


@dataclass(frozen=True)
class CampaignPaths:
    """Where a campaign keeps things; folders or ``s3://`` prefixes.

    Attributes:
        features: the feature cache.
        checkpoints: unfinished nights: states of fits, Ray Train's storage.
    """

    features: str
    checkpoints: str

    @property
    def unregistered(self) -> str:
        """Where finished detectors are kept that the registry did not take."""
        return storage.join(self.checkpoints, "unregistered")

    @classmethod
    def under(cls, work_dir: str) -> CampaignPaths:
        """The usual places in a work directory."""
        root = storage.absolute_uri(work_dir)
        return cls(storage.join(root, "features"), storage.join(root, "checkpoints"))


@dataclass(frozen=True)
class CampaignOptions:
    """What a campaign leaves out.

    Attributes:
        only_changed: categories whose champion was fitted on the same pictures with the same
            settings.
        until: seconds since 1970 after which no category is begun; None for no end.
    """

    only_changed: bool = False
    until: float | None = None

    def may_start(self) -> bool:
        """Whether another category may begin now."""
        return self.until is None or time.time() < self.until


@dataclass
class _Campaign:
    """What the steps of a campaign share."""

    config: Config
    paths: CampaignPaths
    registry: Registry
    progress: Progress
    options: CampaignOptions
    night: Night
    lease: Lease
    tasks: dict[str, CategoryTask] = field(default_factory=dict)
    is_open: bool = False
    """Whether the same command has something left to do."""

    def may_start(self) -> bool:
        """Whether another category may begin now."""
        return self.options.may_start() and not self.lease.is_lost


def run_campaign(
    data: str,
    layout: str,
    categories: Sequence[str] | None,
    config: Config,
    paths: CampaignPaths,
    registry: Registry,
    progress: Progress,
    options: CampaignOptions | None = None,
) -> list[CategoryResult]:
    """Fit and register one detector per category. Needs a Ray session.

    A campaign that was cut short goes on when it is run again with the same arguments: categories
    that are finished are not repeated, and the others go on from their last state.

    Args:
        data: data root, a path or ``s3://`` URI.
        layout: name of the layout, or ``auto``.
        categories: which; None for all.
        config: all settings.
        paths: where intermediate results are kept.
        registry: where detectors are registered.
        progress: where it says what it does.
        options: what it leaves out; nothing by default.

    Returns:
        A row per category, in the order of their names; failed ones too.

    Raises:
        NfbmrError: nothing could be done at all (no data, wrong settings, no registry).
    """
    progress.say(f"Looking for pictures in {data}")
    samples, results = _discovered(data, layout, categories)
    registry.patiently(registry.prepare, config.run.registry_patience_s)
    chosen = None if categories is None else sorted(set(categories))
    learned = {k: v for k, v in config.as_dict().items() if k not in ("run", "night")}
    key = fingerprint(storage.absolute_uri(data), layout, chosen, registry.uri, learned)
    nights = storage.join(paths.checkpoints, "nights")
    with held(storage.join(nights, f"{key}.lease"), "The same command", progress) as lease:
        with store_sentences(f"Opening the night in {nights}"):
            night = open_night(nights, key, progress)
        campaign = _Campaign(
            config, paths, registry, progress, options or CampaignOptions(), night, lease
        )
        splits, failed = split_categories(samples, config)
        results += failed + (_run(campaign, splits) if splits else [])
        if not campaign.is_open:
            with tolerated(progress, "The night could not be closed"):
                night.close()
    return sorted(results, key=lambda result: result.category)


def _discovered(
    data: str, layout: str, categories: Sequence[str] | None
) -> tuple[list[Sample], list[CategoryResult]]:
    """The pictures; a category that was asked for and is not there is a result already.

    Raises:
        DataError: there is nothing, or none of the categories.
    """
    if categories is None:
        return discover(data, layout), []
    samples = discover(data, layout)
    known = {sample.category for sample in samples}
    missing = sorted(set(categories) - known)
    if missing and len(missing) == len(set(categories)):
        discover(data, layout, categories)  # Says what there is, and the nearest name.
    chosen = [sample for sample in samples if sample.category in set(categories)]
    names = ", ".join(sorted(known))
    reason = f"there are no pictures of it in {data} now: expected some of {names}"
    return chosen, [CategoryResult(name, FAILED, decision=reason) for name in missing]


def _run(campaign: _Campaign, splits: dict[str, Split]) -> list[CategoryResult]:
    """Everything after the splits; leaves out what has not changed, where that is wanted."""
    results: list[CategoryResult] = []
    features = CampaignFeatures(campaign.config, campaign.paths.features, campaign.progress)
    if campaign.options.only_changed:
        unchanged, names = unchanged_categories(
            splits, campaign.config, campaign.registry, campaign.progress
        )
        results += unchanged
        splits = {n: s for n, s in splits.items() if n not in {r.category for r in unchanged}}
        features.needed.update(itertools.chain.from_iterable(names.values()))
    lost: list[Exception] = []
    groups = list(groups_of(splits, campaign.night.waited_for))
    for group in groups:
        if not campaign.may_start():
            campaign.is_open = True
            results += [not_reached(name) for name in group]
            continue
        try:
            with store_sentences("Training"):
                results += _run_group(campaign, group, features)
        except (StoreError, WeightsError) as error:
            campaign.is_open = True
            lost.append(error)
            results += [CategoryResult(name, FAILED, decision=str(error)) for name in group]
    if lost and len(lost) == len(groups):
        raise lost[0]  # It was nothing that only one group met.
    features.bound_cache()
    _remember_not_reached(campaign, results)
    return results


def _run_group(
    campaign: _Campaign, splits: dict[str, Split], features: CampaignFeatures
) -> list[CategoryResult]:
    """Compute the features of some categories, and fit them."""
    index, broken = features.compute(splits)
    campaign.is_open |= bool(broken)
    if index is None:
        return broken
    gone = {result.category for result in broken}
    tasks, failures = make_tasks(
        {name: split for name, split in splits.items() if name not in gone},
        Preparation(campaign.config, campaign.paths.features, index),
    )
    night = campaign.night
    campaign.tasks = {
        task.category: replace(task, state_root=night.states(fit_of(task, night))) for task in tasks
    }
    return broken + failures + _fit_all(campaign, splits)


def _remember_not_reached(campaign: _Campaign, results: Sequence[CategoryResult]) -> None:
    not_started = frozenset(r.category for r in results if r.outcome == NOT_STARTED)
    if not_started:
        with tolerated(campaign.progress, "The night could not remember what it did not reach"):
            campaign.night.keep_waiting(not_started)


def _fit_all(campaign: _Campaign, splits: Mapping[str, Split]) -> list[CategoryResult]:
    """Fit and register what this night has not finished yet."""
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
    row = night.result(fit_of(task, night))
    try:
        return None if row is None else CategoryResult(**row)
    except TypeError:  # A row of another version of nfbmr.
        return None


def _fitted(night: Night, task: CategoryTask) -> Fitted | None:
    """A detector that was fitted, but not registered any more before the campaign was cut short."""
    noted = night.fitted(fit_of(task, night))
    if noted is None:
        return None
    try:
        outcome = outcome_of(task.category, Checkpoint(noted["checkpoint"]))
    except (*STORE_FAULTS, StoreError, ValueError):
        return None
    return outcome if isinstance(outcome, Fitted) else None


def _finish(campaign: _Campaign, outcome: Outcome) -> CategoryResult:
    task = campaign.tasks[outcome.category]
    keep_in = campaign.paths.unregistered
    result, has_more_to_do = finish(outcome, task, campaign.night, campaign.registry, keep_in)
    campaign.is_open |= has_more_to_do
    return result


def _note_fitted(campaign: _Campaign, task: CategoryTask, run: str, outcome: Fitted) -> None:
    night = campaign.night
    checkpoint = storage.join(night.runs, run, outcome.checkpoint.path.rpartition("/")[2])
    with tolerated(
        campaign.progress, f"The night could not remember that {task.category} is fitted"
    ):
        night.note_fitted(fit_of(task, night), run, checkpoint)


def _repair(campaign: _Campaign, splits: Mapping[str, Split], task: CategoryTask) -> None:
    """Look into every entry of a category, and compute anew what is damaged or gone."""
    pictures = pictures_of(splits[task.category])
    settings, run = campaign.config.backbone, campaign.config.run
    index = compute_features(pictures, settings, campaign.paths.features, run, distrust=True)
    campaign.progress.say(
        f"{task.category}: {index.computed} features in the cache were damaged or gone; they were "
        "computed anew"
    )


def _said(results: Sequence[CategoryResult], campaign: _Campaign) -> dict[str, CategoryResult]:
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
