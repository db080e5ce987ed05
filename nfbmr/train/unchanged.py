"""Categories that were fitted on the same pictures with the same settings before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nfbmr.config import Config
from nfbmr.errors import RegistryError
from nfbmr.model.backbone import create_backbone
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train.campaign_result import UNCHANGED, CategoryResult
from nfbmr.train.category_tasks import data_fingerprint_of, pictures_of, training_pictures
from nfbmr.train.entry_names import entry_name
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.fingerprints import settings_fingerprint
from nfbmr.train.fitted_before import FittedBefore, fitted_before
from nfbmr.train.hash_memory import HashMemory
from nfbmr.train.picture_names import content_hashes
from nfbmr.train.split import Split
from nfbmr.train.store_silence import settled

COMPARED_AT_ONCE = 100_000
"""Pictures that are fetched before what has changed among them is fitted: some minutes."""


@dataclass
class Comparison:
    """Compares pictures as they are with what registered versions say of theirs.

    Pictures are fetched to be compared, but not decoded, and only those of categories that have
    a version with tonight's settings. A version that was rolled back, or that the gate refused and
    would refuse again, counts as the champion does.

    Attributes:
        config: all settings.
        registry: with the versions.
        progress: where it says what it does.
        memory: what earlier nights know of the pictures: those are not fetched.
        before: versions with tonight's settings, of the categories that have any.
    """

    config: Config
    registry: Registry
    progress: Progress
    memory: HashMemory | None = None
    before: dict[str, Iterator[FittedBefore]] = field(default_factory=dict)
    _known: dict[str, dict[str, str]] = field(default_factory=dict)

    def look_up(self, categories: Iterable[str]) -> None:
        """Ask the registry which categories have a version with tonight's settings.

        Raises:
            RegistryError: the registry could not be reached.
        """
        backbone = create_backbone(self.config.backbone).identity()
        settings = settings_fingerprint(self.config, backbone)
        for name in categories:
            versions = fitted_before(name, settings, self.registry, self.config)
            first = self._next(name, versions)
            if first is not None:
                self.before[name] = itertools.chain([first], versions)

    def batches(self, splits: Mapping[str, Split]) -> Iterator[dict[str, Split]]:
        """Categories in their order, so many that their comparison does not take all night.

        Args:
            splits: of all categories.
        """
        batch: dict[str, Split] = {}
        count = 0
        for name, split in splits.items():
            own = self._count_to_read(name, split) if name in self.before else 0
            if batch and own and count + own > COMPARED_AT_ONCE:
                yield batch
                batch, count = {}, 0
            batch[name] = split
            count += own
        if batch:
            yield batch

    def unchanged(
        self, splits: Mapping[str, Split]
    ) -> tuple[list[CategoryResult], dict[str, list[str]]]:
        """Compare some categories' pictures. Needs a Ray session.

        Args:
            splits: of categories that were looked up.

        Returns:
            A row per unchanged category, and the names of its features in the cache.

        Raises:
            RegistryError: the registry could not be reached.
            StoreError: where the pictures lie, nothing is given any more.
            WorkerError: no worker could read them.
        """
        own = {name: split for name, split in splits.items() if name in self.before}
        known = {name: self._known_of(name, split) for name, split in own.items()}
        hashes = {uri: hash_ for some in known.values() for uri, hash_ in some.items()}
        training = (p for split in own.values() for p in training_pictures(split))
        hashes |= self._hashes(p for p in training if p.uri not in hashes)
        found: dict[str, FittedBefore] = {}
        for name, split in own.items():
            names = {p: hashes[p.uri] for p in training_pictures(split) if p.uri in hashes}
            same = self._same(name, data_fingerprint_of(split, names))
            if same is not None:
                found[name] = same
        judged = {name: own[name] for name, same in found.items() if same.labelled is not None}
        labelled = (Picture(s.uri) for split in judged.values() for s in split.labelled)
        hashes |= self._hashes(p for p in labelled if p.uri not in hashes)
        for name, split in judged.items():
            if _labelled(split, hashes) != found[name].labelled:
                del found[name]
        for name, split in own.items():
            self._remember(name, split, hashes, known[name])
        self.progress.say(f"{len(found)} of {len(splits)} categories have not changed")
        rows = [_row(name, own[name], same) for name, same in found.items()]
        return rows, {name: _entries(own[name], hashes) for name in found}

    def _same(self, category: str, data: str) -> FittedBefore | None:
        """The version that a fit on these pictures would come out as; None for none."""
        versions = self.before[category]
        while (version := self._next(category, versions)) is not None:
            if version.data == data:
                return version
        return None

    def _next(self, category: str, versions: Iterator[FittedBefore]) -> FittedBefore | None:
        """The next version; none of a category that cannot be looked up though others can.

        Raises:
            RegistryError: the whole registry is out of reach.
        """
        try:
            return next(versions, None)
        except RegistryError as error:
            self.registry.prepare()  # Fails, too, where it is not this category's trouble alone.
            self.progress.say(f"warning: {category} is taken for changed: {error}")
            return None

    def _count_to_read(self, category: str, split: Split) -> int:
        known = self._known_of(category, split)
        self._known[category] = known
        return sum(sample.uri not in known for sample in split.pictures)

    def _known_of(self, category: str, split: Split) -> dict[str, str]:
        """Content hashes by URI that need no reading."""
        if self.memory is None:
            return {}
        known = self._known.pop(category, None)
        return self.memory.known(category, _uris(split)) if known is None else known

    def _remember(
        self, category: str, split: Split, hashes: Mapping[str, str], known: Mapping[str, str]
    ) -> None:
        if self.memory is not None:
            own = {uri: hashes[uri] for uri in _uris(split) if uri in hashes}
            self.memory.keep(category, own, known)

    def _hashes(self, pictures: Iterable[Picture]) -> dict[str, str]:
        """Content hashes by URI; what a store does not give is asked for again."""

        def one_pass(some: Sequence[Picture]) -> FeatureIndex:
            with self.progress.counter("pictures compared", len(some)) as count:
                return content_hashes(some, self.config.run, count, self.progress.say)

        wanted = list(set(pictures))
        if not wanted:
            return {}
        index = settled(wanted, one_pass, self.progress.say)
        return {picture.uri: name for picture, name in index.entries.items()}


def unchanged_categories(
    splits: Mapping[str, Split], config: Config, registry: Registry, progress: Progress
) -> tuple[list[CategoryResult], dict[str, list[str]]]:
    """Compare all categories at once; see ``Comparison``.

    Args:
        splits: of all categories.
        config: all settings.
        registry: with the versions.
        progress: where it says what it does.

    Returns:
        As ``Comparison.unchanged``.
    """
    comparison = Comparison(config, registry, progress)
    comparison.look_up(splits)
    return comparison.unchanged(splits)


def _uris(split: Split) -> list[str]:
    return [sample.uri for sample in (*split.pictures, *split.labelled)]


def _labelled(split: Split, hashes: Mapping[str, str]) -> dict[str, bool]:
    """What a fit would be judged by: labelled pictures that are not copies of training pictures."""
    trained_on = {hashes[p.uri] for p in training_pictures(split) if p.uri in hashes}
    kinds = {hashes[s.uri]: s.is_defective for s in split.labelled if s.uri in hashes}
    return {name: kind for name, kind in kinds.items() if name not in trained_on}


def _entries(split: Split, hashes: Mapping[str, str]) -> list[str]:
    return [entry_name(hashes[p.uri], p.variant) for p in pictures_of(split) if p.uri in hashes]


def _row(category: str, split: Split, same: FittedBefore) -> CategoryResult:
    return CategoryResult(
        category,
        UNCHANGED,
        version=same.version,
        pictures=len(split.fit),
        held_out=len(split.held_out),
        decision=same.decision,
    )
