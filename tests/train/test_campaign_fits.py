"""What a group of a campaign fits, in which order, and what it only registers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from nfbmr import storage, store_folders
from nfbmr.config import load_config
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train import campaign_fits
from nfbmr.train.campaign_fits import fit_and_register, rows_not_reached, rows_of_tonight
from nfbmr.train.campaign_result import REGISTERED, UNCHANGED, CategoryResult
from nfbmr.train.campaign_state import Campaign, CampaignOptions, CampaignPaths
from nfbmr.train.category_finish import fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.night import open_night
from nfbmr.train.night_lease import Lease
from nfbmr.train.ray_fit import NotStarted
from tests.registry.finished_fit import finished_fit

QUIET = Progress(quiet=True)


def campaign_of(pictures: Mapping[str, int], root: str) -> Campaign:
    """A campaign without a registry whose categories have so many pictures."""
    config = load_config(None, ["run.registry_patience_s=0"], "small")
    night = open_night(storage.join(root, "nights"), "command", QUIET)
    registry = Registry("http://127.0.0.1:9")
    paths = CampaignPaths.under(root)
    campaign = Campaign(config, paths, registry, QUIET, CampaignOptions(), night, Lease())
    for name, count in pictures.items():
        entries = [f"{name}{number}" for number in range(count)]
        lineage = {"pictures_unreadable": 0}
        campaign.tasks[name] = CategoryTask(
            name, config, "/x", "key", {}, entries, entries, [], lineage=lineage
        )
    return campaign


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The categories in the order in which they would be fitted; nothing is."""
    names: list[str] = []

    def never(tasks: Sequence[CategoryTask], *_: object) -> Iterator[NotStarted]:
        names.extend(task.category for task in tasks)
        yield from (NotStarted(task.category) for task in tasks)

    monkeypatch.setattr(campaign_fits, "fit_categories", never)
    return names


def test_those_that_had_to_wait_come_first_then_the_largest(
    begun: list[str], tmp_path: Path
) -> None:
    """A large one that begins last would keep the others waiting at the end."""
    pictures = {"small": 3, "large": 30, "middle": 10, "also": 10, "waited": 1, "long": 2}
    campaign = campaign_of(pictures, str(tmp_path))
    campaign.night.waited_for = frozenset({"waited", "long"})
    rows = fit_and_register(campaign, {})
    assert begun == ["long", "waited", "large", "also", "middle", "small"]
    assert {row.outcome for row in rows} == {"not started"}
    assert {row.decision.partition(":")[0] for row in rows} == {"its time did not come in this run"}


def test_what_is_left_of_a_night_that_was_taken_over_says_so(
    begun: list[str], tmp_path: Path
) -> None:
    campaign = campaign_of({"bottle": 3}, str(tmp_path))
    campaign.lease.is_lost = True
    (row,) = fit_and_register(campaign, {})
    assert row.outcome == "not started"
    assert "another process has taken this night over" in row.decision


@pytest.mark.parametrize(
    "place", ["disk", pytest.param("object store", marks=pytest.mark.integration)]
)
@pytest.mark.parametrize("category", ["bottle", "metal nut", "Prüfung 50% #1"])
def test_a_detector_that_waits_is_found_whatever_its_category_is_called(
    place: str, category: str, begun: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path)
    if place == "object store":
        root = request.getfixturevalue("s3_bucket")
    campaign = campaign_of({category: 3, "other": 2}, root)
    night, task = campaign.night, campaign.tasks[category]
    checkpoint = storage.join(night.runs, f"fit-{category}-1", "checkpoint_0")
    for path in finished_fit(tmp_path / "fit", category).folder.iterdir():
        storage.write_atomically(storage.join(checkpoint, path.name), path.read_bytes())
    night.note_fitted(fit_of(task, night), f"fit-{category}-1", checkpoint)
    rows = {row.category: row for row in fit_and_register(campaign, {})}
    assert begun == ["other"]
    assert "The finished detector of" in rows[category].decision
    assert store_folders.list_folders(campaign.paths.unregistered)[0].startswith(category)


def test_finished_categories_show_when(begun: list[str], tmp_path: Path) -> None:
    campaign = campaign_of({"bottle": 3, "cable": 2}, str(tmp_path))
    night = campaign.night
    own = CategoryResult("bottle", REGISTERED, version="7", decision="version 7 is champion")
    own.finished_at = "2026-11-26T02:13:00Z"
    night.note_result(fit_of(campaign.tasks["bottle"], night), own.as_dict())
    rows = {row.category: row for row in fit_and_register(campaign, {})}
    assert begun == ["cable"]
    decision = "finished at 2026-11-26T02:13:00Z: version 7 is champion"
    assert (rows["bottle"].version, rows["bottle"].decision) == ("7", decision)


def test_what_a_night_made_champion_itself_is_no_unchanged_category(tmp_path: Path) -> None:
    """The driver was killed: the numbers of what it had finished are in the night."""
    campaign = campaign_of({}, str(tmp_path))
    campaign.night = open_night(str(tmp_path / "nights"), "command", QUIET)
    for name, version in (("bottle", "7"), ("cable", "3")):
        row = CategoryResult(name, REGISTERED, version=version, flow_loss=0.5)
        campaign.night.note_result(f"{name}.0", row.as_dict())
    campaign.night.note_result("nut.0", {"category": "nut"})
    unchanged = [
        CategoryResult(name, UNCHANGED, version="7") for name in ("bottle", "cable", "nut")
    ]
    rows = rows_of_tonight(unchanged, campaign)
    assert [row.outcome for row in rows] == [REGISTERED, UNCHANGED, UNCHANGED]
    assert (rows[0].version, rows[0].flow_loss) == ("7", 0.5)
    assert campaign.fits == {"bottle": "bottle.0"}, "its row is kept"


def test_what_was_finished_before_the_time_was_over_is_not_called_late(tmp_path: Path) -> None:
    """Started again after its time, a command that was lost shortly before it begins nothing."""
    campaign = campaign_of({}, str(tmp_path))
    row = CategoryResult("bottle", REGISTERED, version="7", flow_loss=0.5)
    campaign.night.note_result("bottle.0", row.as_dict())
    campaign.night = open_night(str(tmp_path / "nights"), "command", QUIET)
    rows = rows_not_reached(["cable", "bottle"], campaign)
    assert [row.outcome for row in rows] == ["not started", REGISTERED]
    assert (rows[1].version, rows[1].flow_loss) == ("7", 0.5)
