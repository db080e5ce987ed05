"""Categories whose champion was fitted on the same pictures with the same settings."""

from __future__ import annotations

from collections.abc import Mapping
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
from nfbmr.train.feature_index import Picture
from nfbmr.train.fingerprints import settings_fingerprint
from nfbmr.train.picture_names import content_hashes
from nfbmr.train.split import Split


def unchanged_categories(
    splits: Mapping[str, Split], config: Config, registry: Registry, progress: Progress
) -> tuple[list[CategoryResult], dict[str, list[str]]]:
    """Compare the pictures as they are with what the champions say of theirs. Needs a Ray session.

    Pictures are fetched to be compared, but not decoded.

    Args:
        splits: of all categories.
        config: all settings.
        registry: with the champions.
        progress: where it says what it does.

    Returns:
        A row per unchanged category, and the names of its features in the cache.

    Raises:
        RegistryError: the registry could not be reached.
    """
    settings = settings_fingerprint(config, create_backbone(config.backbone).identity())
    uris = [p.uri for split in splits.values() for p in training_pictures(split)]
    with progress.counter("pictures compared", len(set(uris))) as count:
        hashes = content_hashes(uris, config.run, count)
    rows: list[CategoryResult] = []
    entries: dict[str, list[str]] = {}
    for name, split in splits.items():
        names = {p: entry_name(hashes[p.uri], p.variant) for p in _fetched(split, config, hashes)}
        champion = _champion(name, registry, config, progress)
        if champion is None:
            continue
        is_same = (
            champion.tags.get("nfbmr.data_fingerprint") == data_fingerprint_of(split, names)
            and champion.tags.get("nfbmr.settings_fingerprint") == settings
        )
        if is_same:
            entries[name] = list(names.values())
            rows.append(
                CategoryResult(
                    name,
                    UNCHANGED,
                    version=champion.version,
                    pictures=len(split.fit),
                    held_out=len(split.held_out),
                    decision=f"version {champion.version} is champion: it was fitted on the same "
                    "pictures with the same settings",
                )
            )
    progress.say(f"{len(rows)} of {len(splits)} categories have not changed")
    return rows, entries


def _champion(
    category: str, registry: Registry, config: Config, progress: Progress
) -> ModelVersion | None:
    """A category's champion; None where it has none, or cannot be looked up though others can.

    Raises:
        RegistryError: the whole registry is out of reach.
    """
    try:
        return registry.patiently(partial(registry.find, category), config.run.registry_patience_s)
    except RegistryError as error:
        registry.prepare()  # Fails, too, where it is not this category's trouble alone.
        progress.say(f"warning: {category} is taken for changed: {error}")
        return None


def _fetched(split: Split, config: Config, hashes: Mapping[str, str]) -> list[Picture]:
    return [picture for picture in pictures_of(split) if picture.uri in hashes]
