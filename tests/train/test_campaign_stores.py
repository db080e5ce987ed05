"""Campaigns with their files in an object store, and with one that fails."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from nfbmr import storage, store_folders
from nfbmr.progress import Progress
from nfbmr.registry import Registry, default_uri
from nfbmr.train import campaign_features, category_finish
from nfbmr.train.campaign import (
    CampaignPaths,
    CategoryResult,
    run_campaign,
)
from nfbmr.train.night import Night
from tests.conftest import Trained
from tests.train.campaigns import QUIET, Told


@pytest.mark.integration
def test_data_features_and_checkpoints_may_lie_in_an_object_store(
    trained: Trained, s3_bucket: str, tmp_path: Path
) -> None:
    category = trained.results[0].category
    store = fsspec.filesystem("s3")
    store.put(f"{trained.factory.root}/{category}", f"{s3_bucket}/data/{category}", recursive=True)
    results = run_campaign(
        f"{s3_bucket}/data",
        "mvtec",
        None,
        trained.config,
        CampaignPaths.under(f"{s3_bucket}/nightly"),
        Registry(default_uri(str(tmp_path))),
        QUIET,
    )
    assert [r.outcome for r in results] == ["registered"], results[0].decision
    assert results[0].pictures == trained.results[0].pictures
    assert store.glob(f"{s3_bucket}/nightly/features/**/*.features")


@pytest.mark.slow
@pytest.mark.integration
def test_a_store_that_fails_for_some_categories_fails_no_others(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command goes on with those."""
    first, second = sorted(result.category for result in trained.results)
    registry = Registry(default_uri(str(tmp_path)))
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    real = Night.result

    def out_of_order(self: Night, fit: str) -> dict[str, Any] | None:
        if fit.startswith(f"{first}."):
            raise OSError(errno.EIO, "the share is gone")
        return real(self, fit)

    def run() -> dict[str, tuple[str, str]]:
        quiet = Progress(quiet=True)
        results = run_campaign(
            trained.factory.root, "mvtec", None, trained.config, paths, registry, quiet
        )
        return {result.category: (result.outcome, result.decision) for result in results}

    with monkeypatch.context() as outage:
        outage.setattr(Night, "result", out_of_order)
        rows = run()
    assert rows[first][0] == "failed"
    assert "the share is gone" in rows[first][1]
    assert "run the same command again" in rows[first][1]
    assert rows[second][0] == "registered"
    assert {outcome for outcome, _ in run().values()} == {"registered"}
    assert {v.version for v in registry.list_versions()} == {"1"}


@pytest.mark.integration
@pytest.mark.parametrize("place", ["disk", pytest.param("object store", marks=pytest.mark.slow)])
def test_a_detector_that_is_fitted_is_registered_later_without_a_new_fit(
    place: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The store of the registry's artifacts fails behind the fit; the same command goes on."""
    category = trained.results[0].category
    work_dir = str(tmp_path)
    if place == "object store":
        work_dir = f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    paths = replace(CampaignPaths.under(work_dir), features=str(trained.work_dir / "features"))
    registry = Registry(default_uri(str(tmp_path)))

    def run() -> tuple[CategoryResult, Told]:
        told = Told()
        (result,) = run_campaign(
            trained.factory.root, "mvtec", [category], trained.config, paths, registry, told
        )
        return result, told

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, "the artifact store is gone")

    with monkeypatch.context() as outage:
        outage.setattr(category_finish, "register", refuse)
        result, told = run()
    assert result.outcome == "failed"
    assert "the artifact store is gone" in result.decision
    assert [line for line in told.lines if "flow epoch" in line]
    threshold = result.metrics["threshold"]

    result, told = run()
    assert (result.outcome, result.version) == ("registered", "1")
    assert [line for line in told.lines if "0 of 1 categories are finished, 1 more are" in line]
    assert not [line for line in told.lines if "epoch" in line]
    assert not store_folders.list_folders(storage.join(paths.checkpoints, "nights"))
    again = Registry(default_uri(str(tmp_path))).load(category)
    assert again.threshold == pytest.approx(threshold)
