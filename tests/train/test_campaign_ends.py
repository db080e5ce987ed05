"""Nights that end early, find nothing or are taken over: every category has its row."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nfbmr import storage, store_folders
from nfbmr.data.layouts import discover
from nfbmr.errors import DataError, OutputError, StallError
from nfbmr.registry import Registry, default_uri
from nfbmr.train import campaign, campaign_features, night_lease
from nfbmr.train.campaign import (
    CampaignOptions,
    CampaignPaths,
    CategoryResult,
    run_campaign,
)
from nfbmr.train.campaign_state import Campaign
from nfbmr.train.split import Split
from tests.conftest import Trained
from tests.train.campaigns import QUIET, run_on


def test_a_night_that_finds_no_room_for_features_ends_with_a_row_for_every_category(
    trained: Trained, tmp_path: Path
) -> None:
    """GPUs are counted on that no node brings: waiting for them must have an end."""
    run = replace(trained.config.run, gpus=1, stall_timeout_s=5.0)
    paths = CampaignPaths(str(tmp_path / "features"), str(tmp_path / "checkpoints"))
    registry = Registry(default_uri(str(tmp_path)))
    arguments = (str(trained.factory.root), "mvtec", None, replace(trained.config, run=run))
    results = run_campaign(*arguments, paths, registry, QUIET)
    assert [result.outcome for result in results] == ["failed", "failed"]
    assert {"No picture was finished for 5 s" in result.decision for result in results} == {True}
    assert isinstance(results.error, StallError)
    assert list((tmp_path / "checkpoints" / "nights").glob("*/night.json")), "it goes on"
    left = [thread.name for thread in threading.enumerate() if "StreamingExecutor" in thread.name]
    assert not left, "what waits for the GPU was let go"


def test_an_empty_or_missing_root_is_an_error(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run_on(tmp_path / "none", trained.config, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        run_on(tmp_path / "empty", trained.config, tmp_path)


@pytest.mark.integration
def test_a_category_that_is_gone_fails_alone_and_divergence_is_reported_by_name(
    trained: Trained, tmp_path: Path
) -> None:
    """A worker's FitError comes back as a sentence, through Ray Train."""
    config = replace(
        trained.config,
        fit=replace(trained.config.fit, flow_learning_rate=1e30, gradient_clip_norm=1e30),
    )
    samples = discover(trained.factory.root, "mvtec")
    one = samples[0].category
    results = run_campaign(
        trained.factory.root,
        "mvtec",
        [one, "gone"],
        config,
        CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints")),
        Registry(default_uri(str(tmp_path))),
        QUIET,
    )
    assert [r.outcome for r in results] == ["failed", "failed"]
    results.sort(key=lambda result: result.category == "gone")
    assert "there are no pictures of it" in results[1].decision
    assert f"{one!r} diverged" in results[0].decision
    assert "at step" in results[0].decision


@pytest.mark.integration
def test_time_that_is_over_between_groups_leaves_the_rest_for_the_same_command(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not reached comes first then. Fitting is left out."""
    first, second = sorted(trained.results, key=lambda r: (-(r.pictures + r.held_out), r.category))
    reached: list[str] = []

    @dataclass(frozen=True)
    class OneGroup(CampaignOptions):
        def may_start(self) -> bool:
            return not reached

    def registered(_: object, splits: Mapping[str, Split]) -> list[CategoryResult]:
        reached.extend(splits)
        return [CategoryResult(name, "registered") for name in splits]

    def outcomes(options: CampaignOptions) -> dict[str, str]:
        paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
        arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
        results = run_campaign(*arguments, Registry(default_uri(str(tmp_path))), QUIET, options)
        return {result.category: result.outcome for result in results}

    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    monkeypatch.setattr(campaign, "fit_and_register", registered)
    assert outcomes(OneGroup()) == {first.category: "registered", second.category: "not started"}
    assert (reached.pop(), reached) == (first.category, [])
    outcomes(CampaignOptions())
    assert reached == [second.category, first.category]
    assert not store_folders.list_folders(str(tmp_path / "checkpoints" / "nights")), "it is closed"


@pytest.mark.integration
def test_a_group_has_work_for_all_places(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its pictures alone, each category would be a group. Fitting is left out."""
    groups: list[int] = []

    def registered(_: object, splits: Mapping[str, Split]) -> list[CategoryResult]:
        groups.append(len(splits))
        return [CategoryResult(name, "registered") for name in splits]

    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", trained.settings.train)
    monkeypatch.setattr(campaign, "fit_and_register", registered)
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
    run_campaign(*arguments, trained.registry, QUIET)
    assert groups == [2]


@pytest.mark.integration
def test_a_night_that_was_taken_over_is_left_to_the_other_process(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one stood still for too long. Fitting is left out."""
    first, second = sorted(trained.results, key=lambda r: (-(r.pictures + r.held_out), r.category))
    nights = tmp_path / "checkpoints" / "nights"

    def taken_over(campaign: Campaign, splits: Mapping[str, Split]) -> list[CategoryResult]:
        state = storage.join(campaign.night.states("other.0123"), "fit.safetensors")
        storage.write_atomically(state, b"state")
        other = b'{"id": "y", "host": "another machine", "pid": 1}'
        storage.write_atomically(f"{campaign.night.folder}.lease", other)
        for _ in range(200):
            if campaign.lease.is_lost:
                return [CategoryResult(name, "registered") for name in splits]
            threading.Event().wait(0.05)
        raise AssertionError("nobody noticed")

    monkeypatch.setattr(night_lease, "_RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    monkeypatch.setattr(campaign, "fit_and_register", taken_over)
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
    rows = run_campaign(*arguments, trained.registry, QUIET)
    outcomes = {row.category: row.outcome for row in rows}
    assert outcomes == {first.category: "registered", second.category: "not started"}
    (late,) = (row for row in rows if row.category == second.category)
    assert "another process has taken this night over" in late.decision
    assert isinstance(rows.error, OutputError)
    (night,) = nights.glob("*/night.json")
    assert json.loads(night.read_text())["waited_for"] == []
    assert (night.parent / "other.0123" / "fit.safetensors").exists()
