"""What a campaign is told, and what its steps share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from nfbmr import storage
from nfbmr.config import Config
from nfbmr.errors import NfbmrError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train.campaign_result import CategoryResult, not_reached
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.hash_memory import HashMemory
from nfbmr.train.night import Night
from nfbmr.train.night_lease import Lease


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
    def hashes(self) -> str:
        """Where it is kept what pictures are, so that not all are read every night."""
        return storage.join(self.features, "hashes")

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
            settings, and those whose newest version was, and would be refused again.
        until: seconds since 1970 after which no category is begun, nor its pictures compared;
            None for no end.
    """

    only_changed: bool = False
    until: float | None = None

    def may_start(self) -> bool:
        """Whether another category may begin now."""
        return self.until is None or time.time() < self.until


@dataclass
class Campaign:
    """What the steps of a campaign share.

    Attributes:
        config: all settings.
        paths: where intermediate results are kept.
        registry: where detectors are registered.
        progress: where it says what it does.
        options: what it leaves out.
        night: what it remembers until it ends.
        lease: says whether the night is still this process's.
        memory: what earlier nights know of the pictures.
        tasks: by category, of the group at work.
        fits: names of all fits that were begun or gone on with, by category.
        is_open: whether the same command has something left to do.
        error: what ended it before it was through, as in ``CampaignRows``.
    """

    config: Config
    paths: CampaignPaths
    registry: Registry
    progress: Progress
    options: CampaignOptions
    night: Night
    lease: Lease
    memory: HashMemory | None = None
    tasks: dict[str, CategoryTask] = field(default_factory=dict)
    fits: dict[str, str] = field(default_factory=dict)
    is_open: bool = False
    error: NfbmrError | None = None

    def may_start(self) -> bool:
        """Whether another category may begin now."""
        return self.options.may_start() and not self.lease.is_lost

    def not_reached(self, category: str) -> CategoryResult:
        """The row of a category that may not begin any more."""
        return not_reached(category, is_lost=self.lease.is_lost)
