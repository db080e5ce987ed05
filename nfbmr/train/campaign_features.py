"""The features of a campaign's pictures, a group of categories at a time.

A group is fitted before the features of the next one are computed, so that a night that is cut by
its time has finished something; and what breaks in the pass of one group fails no other.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nfbmr.config import Config
from nfbmr.errors import (
    STORE_FAULTS,
    ConfigError,
    StallError,
    StoreError,
    WeightsError,
    WorkerError,
)
from nfbmr.model.backbone import create_backbone
from nfbmr.progress import Progress
from nfbmr.resources import has_room_for_actor
from nfbmr.train.cache_eviction import evict, make_room
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

_STALLS_IN_VAIN = 2
"""So many categories by themselves stall before workers are taken for ones that never come."""

_GIB = 2**30
_HEADER_BYTES = 128
"""Of an entry of the cache, about."""

_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))
"""What a worker's failure says where nothing can be written any more."""


@dataclass
class CampaignFeatures:
    """Computes features and remembers which entries of the cache the campaign needs.

    Attributes:
        config: all settings.
        root: of the feature cache.
        progress: where it says what it does.
        needed: entries of the cache.
        backbone_key: of the backbone; empty before anybody asked for it.
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
    _finished: int = field(default=0, init=False)
    _entry_bytes: int = field(default=0, init=False)
    _cache_at_most: float = field(default=math.inf, init=False)

    def compute(
        self, splits: Mapping[str, Split]
    ) -> tuple[FeatureIndex | None, list[CategoryResult]]:
        """The features of some categories; those whose pass broke twice are results already.

        So are those, where a pass broke, whose turn did not come in time.

        Raises:
            ConfigError: the backbone's settings do not fit.
            WeightsError: its weights cannot be had.
            StoreError: where the pictures lie, nothing is given any more.
            StallError: nothing was finished for as long as is waited, and a smaller pass would
                fare no better: no worker ever began, or it is the pass of one category.
        """
        self._finished = 0
        try:
            index = self._pass_with_room(splits)
        except WorkerError as error:
            if isinstance(error, StallError) and not self._may_pass(splits):
                raise
            if len(splits) == 1:
                (name,) = splits
                return None, [CategoryResult(name, FAILED, decision=str(error))]
            self.progress.say(f"{error} Now every category by itself")
            return self._one_by_one(splits)
        self._say(index)
        self.needed.update(index.entries.values())
        self.backbone_key = index.backbone_key
        return index, []

    def _may_pass(self, splits: Mapping[str, Split]) -> bool:
        """Whether parts of a pass that stalled may come through: its workers began, or can."""
        return len(splits) > 1 and (self._finished > 0 or has_room_for_actor(self.config.run))

    def _pass_with_room(self, splits: Mapping[str, Split]) -> FeatureIndex:
        """One pass; where a disk is full, another one after old features made way."""
        self._make_room(splits)
        try:
            return self._pass(splits)
        except (StoreError, WorkerError) as error:
            is_full = any(sign in str(error) for sign in _FULL)
            if not is_full or not self._make_room(splits, is_full=True):
                raise
            return self._pass(splits)

    def _make_room(self, splits: Mapping[str, Split], *, is_full: bool = False) -> int:
        """Remove old features where new ones would not keep to the limit; returns how many."""
        limit_gib = self.config.night.cache_gib
        self._know_backbone()
        coming = self._entry_bytes * sum(len(pictures_of(split)) for split in splits.values())
        if limit_gib <= 0:
            return 0
        if not is_full and self._cache_at_most + coming <= limit_gib * _GIB:
            self._cache_at_most += coming  # Nobody need list a cache that is far from full.
            return 0
        try:
            done = make_room(
                self.root, self.backbone_key, self.needed, limit_gib, coming, is_full=is_full
            )
        except (*STORE_FAULTS, StoreError) as error:
            self.progress.say(f"warning: no room could be made in {self.root}: {error}")
            return 0
        self._cache_at_most = done.size_gib * _GIB + coming
        if done.removed:
            why = "the disk is full" if is_full else "new ones come"
            self.progress.say(
                f"Removed {done.removed} features from the cache that were not used for longest: "
                f"{why}"
            )
        return done.removed

    def _know_backbone(self) -> None:
        """Look up the backbone's key and the size of its features, once.

        Raises:
            ConfigError: its settings do not fit.
            WeightsError: its weights cannot be had.
        """
        if not self._entry_bytes:
            backbone = create_backbone(self.config.backbone)
            self.backbone_key = backbone.key()
            self._entry_bytes = 2 * math.prod(backbone.shape) + _HEADER_BYTES

    def _pass(self, splits: Mapping[str, Split]) -> FeatureIndex:
        pictures = [p for split in splits.values() for p in pictures_of(split)]
        return settled(pictures, self._one_pass, self.progress.say)

    def _one_pass(self, pictures: Sequence[Picture]) -> FeatureIndex:
        with self.progress.counter("features", len(pictures)) as count:

            def note(done: int, _: int) -> None:
                self._finished += 1
                count(done)

            return compute_features(
                pictures,
                self.config.backbone,
                self.root,
                self.config.run,
                note,
                say=self.progress.say,
            )

    def _one_by_one(
        self, splits: Mapping[str, Split]
    ) -> tuple[FeatureIndex | None, list[CategoryResult]]:
        """A pass per category, in which every one may stall by itself.

        Raises:
            StallError: nobody has finished anything yet: not every category waits in vain.
        """
        whole: FeatureIndex | None = None
        failures: list[CategoryResult] = []
        have_begun, stalls = self._finished > 0, 0
        for name, split in splits.items():
            if not self.may_start():
                failures.append(self.not_reached(name))
                continue
            try:
                index, failed = self.compute({name: split})
            except StallError as error:
                stalls += 1
                have_begun |= self._finished > 0
                if not have_begun and stalls >= _STALLS_IN_VAIN:
                    raise
                index, failed = None, [CategoryResult(name, FAILED, decision=str(error))]
            else:
                have_begun = True
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
        try:
            self._know_backbone()
        except (ConfigError, WeightsError):
            return  # Every group has said so.
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
