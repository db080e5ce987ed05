"""Training all categories of a data root: features, fits, registry, promotion, one table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from nfbmr import storage
from nfbmr.config import Config
from nfbmr.errors import (
    NfbmrError,
    OutputError,
    RegistryError,
    StoreError,
    WeightsError,
    WorkerError,
)
from nfbmr.model.backbone import create_backbone
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.store_faults import store_sentences
from nfbmr.train.campaign_data import look_for, say_missing
from nfbmr.train.campaign_features import FITS_PER_SLOT, CampaignFeatures, groups_of, in_order
from nfbmr.train.campaign_fits import fit_and_register, rows_not_reached, rows_of_tonight
from nfbmr.train.campaign_places import check_places
from nfbmr.train.campaign_result import FAILED, NOT_STARTED, CampaignRows, CategoryResult
from nfbmr.train.campaign_state import Campaign, CampaignOptions, CampaignPaths
from nfbmr.train.category_finish import fit_of
from nfbmr.train.category_tasks import Preparation, make_tasks, split_categories
from nfbmr.train.fingerprints import fingerprint
from nfbmr.train.fit_capacity import slots_of
from nfbmr.train.hash_memory import HashMemory
from nfbmr.train.night import open_night, tolerated
from nfbmr.train.night_lease import held
from nfbmr.train.split import Split
from nfbmr.train.unchanged import Comparison

__all__ = ["CampaignOptions", "CampaignPaths", "CategoryResult", "run_campaign"]


def run_campaign(
    data: str,
    layout: str,
    categories: Sequence[str] | None,
    config: Config,
    paths: CampaignPaths,
    registry: Registry,
    progress: Progress,
    options: CampaignOptions | None = None,
) -> CampaignRows:
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
        A row per category, in the order of their names; failed ones too. They say themselves
        whether something ended the campaign before it was through.

    Raises:
        NfbmrError: nothing could be done at all (no data, wrong settings, no registry, a node
            that does not see the pictures or the work directory).
    """
    progress.say(f"Looking for pictures in {data}")
    tonight = look_for(data, layout, categories)
    check_places(tonight.samples, config, paths)
    registry.patiently(registry.prepare, config.run.registry_patience_s)
    if categories is None:
        say_missing(registry, data, tonight.categories, progress)
    root = storage.absolute_uri(data)
    memory = HashMemory(paths.hashes, root, tonight.versions, progress)
    key = _night_key(root, layout, categories, config, registry)
    nights = storage.join(paths.checkpoints, "nights")
    with held(storage.join(nights, f"{key}.lease"), "The same command", progress) as lease:
        with store_sentences(f"Opening the night in {nights}"):
            night = open_night(nights, key, progress, config.night.resume_hours)
        campaign = Campaign(
            config, paths, registry, progress, options or CampaignOptions(), night, lease, memory
        )
        splits, failed = split_categories(tonight.samples, config)
        results = tonight.results + failed + (_run(campaign, splits) if splits else [])
        if lease.is_lost:
            campaign.error = OutputError(
                "Another process took this night over while this one stood still: it finishes what "
                "is left. Look at its table, or run the same command again once it has ended."
            )
        elif not campaign.is_open:
            with tolerated(progress, "The night could not be closed"):
                night.close()
    return CampaignRows(sorted(results, key=lambda row: row.category), campaign.error)


def _night_key(
    root: str,
    layout: str,
    categories: Sequence[str] | None,
    config: Config,
    registry: Registry,
) -> str:
    """The same for commands that fit the same: settings of resources and nights are left out."""
    chosen = None if categories is None else sorted(set(categories))
    learned = {k: v for k, v in config.as_dict().items() if k not in ("run", "night")}
    return fingerprint(root, layout, chosen, registry.uri, learned)


def _run(campaign: Campaign, splits: dict[str, Split]) -> list[CategoryResult]:
    """Everything after the splits; leaves out what has not changed, where that is wanted."""
    results: list[CategoryResult] = []
    features = CampaignFeatures(
        campaign.config,
        campaign.paths.features,
        campaign.progress,
        may_start=campaign.may_start,
        not_reached=campaign.not_reached,
    )
    lost: list[NfbmrError] = []
    tried = 0
    at_once = FITS_PER_SLOT * slots_of(campaign.config.run, len(splits))
    for batch, unchanged, error in _batches(campaign, splits, features):
        results += unchanged
        if error is not None:
            tried += 1
            lost.append(error)
        for group in groups_of(batch, campaign.night.waited_for, categories=at_once):
            tried += 1
            if not campaign.may_start():
                campaign.is_open = True
                results += rows_not_reached(group, campaign)
                continue
            try:
                with store_sentences("Training"):
                    results += _run_group(campaign, group, features)
            except (StoreError, WeightsError, WorkerError) as failure:
                campaign.is_open = True
                lost.append(failure)
                results += _failed(group, failure)
    if lost and len(lost) == tried:
        campaign.error = lost[0]  # It was nothing that only one group met.
        return results
    if campaign.lease.is_lost:  # What is left is another process's.
        return results
    features.bound_cache()
    with tolerated(campaign.progress, "What is left of earlier fits could not be removed"):
        campaign.night.forget_others(campaign.fits, splits.keys() - campaign.fits.keys())
    _remember_not_reached(campaign, results)
    return results


def _batches(
    campaign: Campaign, splits: dict[str, Split], features: CampaignFeatures
) -> Iterator[tuple[dict[str, Split], list[CategoryResult], NfbmrError | None]]:
    """What is to be fitted, the rows of what is not, and what failed the comparison, if it did.

    All at once where nothing is compared. Else what has changed among some categories is fitted
    before the next ones are compared: reading all pictures may take longer than a night.
    """
    if not campaign.options.only_changed or not campaign.may_start():
        yield splits, [], None
        return
    memory = campaign.memory
    comparison = Comparison(campaign.config, campaign.registry, campaign.progress, memory)
    comparison.look_up(splits)
    ordered = {name: splits[name] for name in in_order(splits, campaign.night.waited_for)}
    for batch in comparison.batches(ordered):
        if not campaign.may_start():
            yield batch, [], None
            continue
        try:
            with store_sentences("Comparing pictures"):
                rows = _unchanged(campaign, batch, comparison, features)
            error = None
        except (RegistryError, StoreError, WorkerError) as failure:
            campaign.is_open, error = True, failure
            rows = _failed(batch.keys() & comparison.before.keys(), failure)
        done = {row.category for row in rows}
        yield {name: split for name, split in batch.items() if name not in done}, rows, error
    if memory is not None:
        memory.forget_old()


def _unchanged(
    campaign: Campaign,
    splits: Mapping[str, Split],
    comparison: Comparison,
    features: CampaignFeatures,
) -> list[CategoryResult]:
    """The rows of categories that have not changed; their features stay in the cache."""
    unchanged, names = comparison.unchanged(splits)
    features.needed.update(itertools.chain.from_iterable(names.values()))
    if names:  # Their features are in use, though none is computed.
        features.backbone_key = create_backbone(campaign.config.backbone).key()
    return rows_of_tonight(unchanged, campaign)


def _failed(categories: Iterable[str], error: NfbmrError) -> list[CategoryResult]:
    return [CategoryResult(name, FAILED, decision=str(error)) for name in categories]


def _run_group(
    campaign: Campaign, splits: dict[str, Split], features: CampaignFeatures
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
    campaign.fits |= {task.category: fit_of(task, night) for task in tasks}
    return broken + failures + fit_and_register(campaign, splits)


def _remember_not_reached(campaign: Campaign, results: Sequence[CategoryResult]) -> None:
    not_started = frozenset(r.category for r in results if r.outcome == NOT_STARTED)
    if not_started:
        with tolerated(campaign.progress, "The night could not remember what it did not reach"):
            campaign.night.keep_waiting(not_started)
