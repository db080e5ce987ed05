"""The features of a campaign's pictures, a group of categories at a time.

A group is fitted before the features of the next one are computed, so that a night that is cut by
its time has finished something; and what breaks in the pass of one group fails no other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nfbmr.config import Config
from nfbmr.errors import STORE_FAULTS, StallError, StoreError, WorkerError
from nfbmr.progress import Progress
from nfbmr.train.cache_eviction import evict
from nfbmr.train.campaign_result import FAILED, CategoryResult, not_reached
from nfbmr.train.category_tasks import pictures_of
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.features import compute_features
from nfbmr.train.split import Split
from nfbmr.train.store_silence import joined, settled

GROUP_PICTURES = 20_000
"""Of a group that holds enough categories: minutes of a GPU."""

FITS_PER_SLOT = 2
"""Categories of a group for every place for a fit: where one ends, another one begins."""

_PICTURES_AT_MOST = 10
"""Times ``GROUP_PICTURES``, however many fits find room: a night's end must not come first."""

_UNREADABLE_SAID = 200


@dataclass
class CampaignFeatures:
    """Computes features and remembers which entries of the cache the campaign needs.

    Attributes:
        config: all settings.
        root: of the feature cache.
        progress: where it says what it does.
        needed: entries of the cache.
        backbone_key: of the backbone; empty before anything was computed.
        may_start: whether another category may begin now.
        not_reached: the row of one that may not.
    """

    config: Config
    root: str
    progress: Progress
    needed: set[str] = field(default_factory=set)
    backbone_key: str = ""
    may_start: Callable[[], bool] = lambda: True
    not_reached: Callable[[str], CategoryResult] = not_reached

    def compute(
        self, splits: Mapping[str, Split]
    ) -> tuple[FeatureIndex | None, list[CategoryResult]]:
        """The features of some categories; those whose pass broke twice are results already.

        So are those, where a pass broke, whose turn did not come in time.

        Raises:
            ConfigError: the backbone's settings do not fit.
            WeightsError: its weights cannot be had.
            StoreError: where the pictures lie, nothing is given any more.
            StallError: nothing was computed for as long as is waited; a smaller pass would fare
                no better.
        """
        try:
            index = self._pass(splits)
        except StallError:
            raise
        except WorkerError as error:
            if len(splits) == 1:
                (name,) = splits
                return None, [CategoryResult(name, FAILED, decision=str(error))]
            self.progress.say(f"{error} Now every category by itself")
            return self._one_by_one(splits)
        self._say(index)
        self.needed.update(index.entries.values())
        self.backbone_key = index.backbone_key
        return index, []

    def _pass(self, splits: Mapping[str, Split]) -> FeatureIndex:
        pictures = [p for split in splits.values() for p in pictures_of(split)]
        return settled(pictures, self._one_pass, self.progress.say)

    def _one_pass(self, pictures: Sequence[Picture]) -> FeatureIndex:
        with self.progress.counter("features", len(pictures)) as count:
            return compute_features(
                pictures,
                self.config.backbone,
                self.root,
                self.config.run,
                lambda done, _: count(done),
                say=self.progress.say,
            )

    def _one_by_one(
        self, splits: Mapping[str, Split]
    ) -> tuple[FeatureIndex | None, list[CategoryResult]]:
        whole: FeatureIndex | None = None
        failures: list[CategoryResult] = []
        for name, split in splits.items():
            if not self.may_start():
                failures.append(self.not_reached(name))
                continue
            index, failed = self.compute({name: split})
            failures += failed
            if index is not None:
                whole = index if whole is None else joined(whole, index)
        return whole, failures

    def _say(self, index: FeatureIndex) -> None:
        reused = len(index.entries) - index.computed
        unreadable = {picture.uri: error for picture, error in index.errors.items()}
        self.progress.say(
            f"Features of {len(index.entries)} pictures ({index.computed} computed, {reused} from "
            f"the cache, {len(unreadable)} pictures unreadable)"
        )
        for uri, error in itertools.islice(unreadable.items(), _UNREADABLE_SAID):
            self.progress.say(f"  skipped {uri}: {error}")
        if len(unreadable) > _UNREADABLE_SAID:
            self.progress.say(f"  and {len(unreadable) - _UNREADABLE_SAID} more")

    def bound_cache(self) -> None:
        """Remove features that nobody has used for longest."""
        limit_gib = self.config.night.cache_gib
        if not self.backbone_key:
            return
        try:
            done = evict(self.root, self.backbone_key, self.needed, limit_gib)
        except (*STORE_FAULTS, StoreError) as error:
            self.progress.say(f"warning: {self.root} could not be bounded tonight: {error}")
            return
        if done.removed:
            self.progress.say(
                f"Removed {done.removed} features from the cache that were not used for longest; "
                f"it has {done.size_gib:.2f} GiB now"
            )
        if 0 < limit_gib < done.needed_gib:
            self.progress.say(
                f"The features of this campaign alone take {done.needed_gib:.2f} GiB, more than "
                f"night.cache_gib = {limit_gib:g}: they are kept"
            )


def groups_of(
    splits: Mapping[str, Split],
    first: frozenset[str],
    pictures: int | None = None,
    categories: int = 1,
) -> Iterator[dict[str, Split]]:
    """The categories in the order in which they are fitted, so many at a time.

    A group is full when it has both so many pictures and so many categories, or ten times so many
    pictures. A larger category is a group by itself.

    Args:
        splits: of all categories.
        first: categories that come before the others; of the rest the largest come first.
        pictures: of a group. By default ``GROUP_PICTURES``.
        categories: of a group.
    """
    limit = GROUP_PICTURES if pictures is None else pictures
    group: dict[str, Split] = {}
    count = 0
    for name in in_order(splits, first):
        enough = limit if len(group) >= categories else _PICTURES_AT_MOST * limit
        if group and count + len(splits[name].pictures) > enough:
            yield group
            group, count = {}, 0
        group[name] = splits[name]
        count += len(splits[name].pictures)
    if group:
        yield group


def in_order(splits: Mapping[str, Split], first: frozenset[str]) -> Sequence[str]:
    """Categories in the order in which they are fitted; see ``groups_of``."""
    return sorted(splits, key=lambda name: (name not in first, -len(splits[name].pictures), name))
