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
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train.background import Background
from nfbmr.train.cache_eviction import evict
from nfbmr.train.campaign_result import NOT_STARTED, CategoryResult
from nfbmr.train.category_finish import finish, fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.category_tasks import Preparation, make_tasks, pictures_of, split_categories
from nfbmr.train.features import FeatureIndex, compute_features
from nfbmr.train.fingerprints import fingerprint
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_queue import QueueHooks, fit_categories
from nfbmr.train.night import Night, open_night
from nfbmr.train.night_lease import held
from nfbmr.train.ray_fit import Fitted, Outcome, outcome_of
from nfbmr.train.split import Split
from nfbmr.train.unchanged import unchanged_categories

__all__ = ["CampaignOptions", "CampaignPaths", "CategoryResult", "run_campaign"]

_REGISTERING_AT_ONCE = 4
_WORST_SAID = 3
_UNREADABLE_SAID = 200


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
    tasks: dict[str, CategoryTask] = field(default_factory=dict)
    is_open: bool = False
    """Whether the same command has something left to do."""


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
    samples = discover(data, layout, categories)
    registry.patiently(registry.prepare, config.run.registry_patience_s)
    chosen = None if categories is None else sorted(set(categories))
    learned = {k: v for k, v in config.as_dict().items() if k not in ("run", "night")}
    key = fingerprint(storage.absolute_uri(data), layout, chosen, registry.uri, learned)
    nights = storage.join(paths.checkpoints, "nights")
    with held(storage.join(nights, f"{key}.lease"), "The same command", progress):
        night = open_night(nights, key, progress)
        campaign = _Campaign(config, paths, registry, progress, options or CampaignOptions(), night)
        splits, results = split_categories(samples, config)
        results += _run(campaign, splits) if splits else []
        if not campaign.is_open:
            night.close()
    return sorted(results, key=lambda result: result.category)


def _run(campaign: _Campaign, splits: dict[str, Split]) -> list[CategoryResult]:
    """Everything after the splits; leaves out what has not changed, where that is wanted."""
    results: list[CategoryResult] = []
    names: dict[str, list[str]] = {}
    if campaign.options.only_changed:
        unchanged, names = unchanged_categories(
            splits, campaign.config, campaign.registry, campaign.progress
        )
        results += unchanged
        splits = {n: s for n, s in splits.items() if n not in {r.category for r in unchanged}}
    if not splits:
        return results
    index = _features(campaign, splits)
    kept = [entry for entries in names.values() for entry in entries]
    _bound_cache(campaign, index, kept)
    tasks, failures = make_tasks(
        splits, Preparation(campaign.config, campaign.paths.features, index)
    )
    night = campaign.night
    campaign.tasks = {
        task.category: replace(task, state_root=night.states(fit_of(task, night))) for task in tasks
    }
    return results + failures + _fit_all(campaign, splits)


def _features(campaign: _Campaign, splits: Mapping[str, Split]) -> FeatureIndex:
    config, progress = campaign.config, campaign.progress
    pictures = [p for split in splits.values() for p in pictures_of(split, config)]
    with progress.counter("features", len(pictures)) as count:
        index = compute_features(
            pictures,
            config.backbone,
            campaign.paths.features,
            config.run,
            lambda done, _: count(done),
        )
    reused = len(index.entries) - index.computed
    progress.say(
        f"Features of {len(index.entries)} pictures ({index.computed} computed, {reused} from the "
        f"cache, {len({picture.uri for picture in index.errors})} pictures unreadable)"
    )
    unreadable = {picture.uri: error for picture, error in index.errors.items()}
    for uri, error in itertools.islice(unreadable.items(), _UNREADABLE_SAID):
        progress.say(f"  skipped {uri}: {error}")
    if len(unreadable) > _UNREADABLE_SAID:
        progress.say(f"  and {len(unreadable) - _UNREADABLE_SAID} more")
    return index


def _bound_cache(campaign: _Campaign, index: FeatureIndex, kept: Sequence[str]) -> None:
    """Remove features that nobody has used for longest."""
    limit_gib = campaign.config.night.cache_gib
    needed = {*index.entries.values(), *kept}
    done = evict(campaign.paths.features, index.backbone_key, needed, limit_gib)
    if done.removed:
        campaign.progress.say(
            f"Removed {done.removed} features from the cache that were not used for longest; it "
            f"has {done.size_gib:.2f} GiB now"
        )
    if 0 < limit_gib < done.needed_gib:
        campaign.progress.say(
            f"The features of this campaign alone take {done.needed_gib:.2f} GiB, more than "
            f"night.cache_gib = {limit_gib:g}: they are kept"
        )


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
        may_start=campaign.options.may_start,
        repair=partial(_repair, campaign, splits),
        fitted=partial(_note_fitted, night),
    )
    ordered = sorted(
        left, key=lambda t: (t.category not in night.waited_for, -len(t.fit_entries), t.category)
    )
    for outcome in fit_categories(ordered, campaign.config.run, night.runs, hooks):
        registering.run(partial(_finish, campaign, outcome))
        results |= _said(registering.finished(), campaign)
    results |= _said(registering.finished(wait=True), campaign)
    not_started = frozenset(n for n, r in results.items() if r.outcome == NOT_STARTED)
    if not_started:
        night.keep_waiting(not_started)
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
    except (OSError, ValueError):
        return None
    return outcome if isinstance(outcome, Fitted) else None


def _finish(campaign: _Campaign, outcome: Outcome) -> CategoryResult:
    task = campaign.tasks[outcome.category]
    keep_in = campaign.paths.unregistered
    result, has_more_to_do = finish(outcome, task, campaign.night, campaign.registry, keep_in)
    campaign.is_open |= has_more_to_do
    return result


def _note_fitted(night: Night, task: CategoryTask, run: str, outcome: Fitted) -> None:
    checkpoint = storage.join(night.runs, run, outcome.checkpoint.path.rpartition("/")[2])
    night.note_fitted(fit_of(task, night), run, checkpoint)


def _repair(campaign: _Campaign, splits: Mapping[str, Split], task: CategoryTask) -> None:
    """Look into every entry of a category, and compute anew what is damaged or gone."""
    pictures = pictures_of(splits[task.category], campaign.config)
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
