"""Categories that were fitted on the same pictures with the same settings before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from nfbmr.config import Config
from nfbmr.errors import RegistryError
from nfbmr.model.backbone import create_backbone
from nfbmr.model_version import ModelVersion
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train.campaign_result import UNCHANGED, CategoryResult
from nfbmr.train.category_tasks import data_fingerprint_of, pictures_of, training_pictures
from nfbmr.train.entry_names import entry_name
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.fingerprints import settings_fingerprint
from nfbmr.train.finished import FINGERPRINT_TAGS
from nfbmr.train.picture_names import content_hashes
from nfbmr.train.split import Split
from nfbmr.train.store_silence import settled


def unchanged_categories(
    splits: Mapping[str, Split], config: Config, registry: Registry, progress: Progress
) -> tuple[list[CategoryResult], dict[str, list[str]]]:
    """Compare the pictures as they are with what the champions say of theirs. Needs a Ray session.

    Pictures are fetched to be compared, but not decoded. A champion that was rolled back counts as
    well: the gate would refuse the same fit, every night.

    Args:
        splits: of all categories.
        config: all settings.
        registry: with the champions.
        progress: where it says what it does.

    Returns:
        A row per unchanged category, and the names of its features in the cache.

    Raises:
        RegistryError: the registry could not be reached.
        StoreError: where the pictures lie, nothing is given any more.
        WorkerError: no worker could read them.
    """
    settings = settings_fingerprint(config, create_backbone(config.backbone).identity())
    hashes = _hashes(splits, config, progress)
    rows: list[CategoryResult] = []
    entries: dict[str, list[str]] = {}
    for name, split in splits.items():
        names = {p: entry_name(hashes[p.uri], p.variant) for p in _fetched(split, config, hashes)}
        data = data_fingerprint_of(split, names)
        fitted = _fitted_before(name, (data, settings), registry, config, progress)
        if fitted is not None:
            entries[name] = list(names.values())
            version, decision = fitted
            rows.append(
                CategoryResult(
                    name,
                    UNCHANGED,
                    version=version,
                    pictures=len(split.fit),
                    held_out=len(split.held_out),
                    decision=decision,
                )
            )
    progress.say(f"{len(rows)} of {len(splits)} categories have not changed")
    return rows, entries


def _hashes(splits: Mapping[str, Split], config: Config, progress: Progress) -> dict[str, str]:
    """The content hashes by URI; what a store does not give is asked for again."""

    def one_pass(pictures: Sequence[Picture]) -> FeatureIndex:
        with progress.counter("pictures compared", len(pictures)) as count:
            return content_hashes(pictures, config.run, count, progress.say)

    uris = {p.uri for split in splits.values() for p in training_pictures(split)}
    index = settled([Picture(uri) for uri in uris], one_pass, progress.say)
    return {picture.uri: name for picture, name in index.entries.items()}


def _fitted_before(
    category: str,
    fingerprints: tuple[str, str],
    registry: Registry,
    config: Config,
    progress: Progress,
) -> tuple[str, str] | None:
    """The version that a fit would come out as, and why it is left out; None if it is to be fitted.

    So is a category that cannot be looked up though others can.

    Raises:
        RegistryError: the whole registry is out of reach.
    """
    patience_s = config.run.registry_patience_s
    try:
        champion = registry.patiently(partial(registry.find, category), patience_s)
        if champion is None:
            return None
        if _fingerprints(champion) == fingerprints:
            return champion.version, (
                f"version {champion.version} is champion: it was fitted on the same pictures with "
                "the same settings"
            )
        other = registry.patiently(partial(registry.taken_back, category), patience_s)
    except RegistryError as error:
        registry.prepare()  # Fails, too, where it is not this category's trouble alone.
        progress.say(f"warning: {category} is taken for changed: {error}")
        return None
    if other is None or _fingerprints(other) != fingerprints:
        return None
    return other.version, (
        f"version {other.version} was fitted on the same pictures with the same settings and "
        f"was rolled back; version {champion.version} is champion"
    )


def _fingerprints(version: ModelVersion) -> tuple[str | None, ...]:
    return tuple(version.tags.get(tag) for tag in FINGERPRINT_TAGS)


def _fetched(split: Split, config: Config, hashes: Mapping[str, str]) -> list[Picture]:
    return [picture for picture in pictures_of(split) if picture.uri in hashes]
