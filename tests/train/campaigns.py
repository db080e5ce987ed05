"""What the tests of campaigns share."""

from pathlib import Path

from nfbmr.config import Config
from nfbmr.progress import Progress
from nfbmr.registry import Registry, default_uri
from nfbmr.train.campaign import (
    CampaignPaths,
    CategoryResult,
    run_campaign,
)

QUIET = Progress(quiet=True)


def run_on(data: Path, config: Config, work_dir: Path) -> list[CategoryResult]:
    registry = Registry(default_uri(str(work_dir)))
    paths = CampaignPaths.under(str(work_dir))
    return run_campaign(str(data), "folder", None, config, paths, registry, QUIET)


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
