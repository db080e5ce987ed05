"""Categories that were fitted on the same pictures with the same settings are left out."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.errors import RegistryUnavailableError
from nfbmr.model_version import ModelVersion
from nfbmr.registry import CHAMPION, Registry, default_uri
from nfbmr.train.campaign import (
    CampaignOptions,
    CampaignPaths,
    CategoryResult,
    run_campaign,
)
from nfbmr.train.category_tasks import split_categories
from nfbmr.train.finished import FINGERPRINT_TAGS
from nfbmr.train.unchanged import unchanged_categories
from tests.conftest import Trained
from tests.train.campaigns import QUIET, Told


def test_unchanged_categories_are_left_out(trained: Trained, tmp_path: Path) -> None:
    """Nothing is fitted here: what has changed finds no time to begin."""
    first, second = (result.category for result in trained.results)
    over = CampaignOptions(only_changed=True, until=time.time() - 1)

    def outcomes(data: Path | str, config: Config) -> list[str]:
        paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
        arguments = (str(data), "mvtec", None, config, paths, trained.registry, QUIET)
        return [result.outcome for result in run_campaign(*arguments, over)]

    assert outcomes(trained.factory.root, trained.config) == ["unchanged", "unchanged"]
    fit = replace(trained.config.fit, weight_decay=1e-4)
    other = replace(trained.config, fit=fit)
    assert outcomes(trained.factory.root, other) == ["not started", "not started"]
    night = replace(trained.config.night, cache_gib=50.0)
    assert outcomes(trained.factory.root, replace(trained.config, night=night)) == [
        "unchanged",
        "unchanged",
    ]
    data = tmp_path / "data"
    shutil.copytree(trained.factory.root, data)
    next((data / first / "train" / "good").iterdir()).unlink()
    assert outcomes(data, trained.config) == ["not started", "unchanged"]
    assert first < second
    nights = list((tmp_path / "checkpoints" / "nights").glob("*/night.json"))
    assert nights, "the same command goes on"
    # As if it had fitted and registered the other one before it was killed.
    own = CategoryResult(second, "registered", version="1", seconds=3.0, finished_at="2026-11-26")
    noted = [path.with_name(f"{second}.{'0' * 16}.result.json") for path in nights]
    for path in noted:
        path.write_text(json.dumps(own.as_dict()))
    assert outcomes(data, trained.config) == ["not started", "registered"]
    assert sum(path.exists() for path in noted) == len(noted), "as often as it is gone on with"


class Odd(Registry):
    """Of which one category cannot be looked up, and perhaps nothing else either."""

    odd = ""
    is_gone = False

    def find(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        if category == self.odd or self.is_gone:
            raise RegistryUnavailableError("The registry failed.")
        return super().find(category, alias_or_version)

    def prepare(self) -> None:
        if self.is_gone:
            raise RegistryUnavailableError("The registry is out of reach.")
        super().prepare()


def test_one_category_that_cannot_be_looked_up_is_taken_for_changed(trained: Trained) -> None:
    first, second = (result.category for result in trained.results)
    config = replace(trained.config, run=replace(trained.config.run, registry_patience_s=0))
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), config)
    registry, told = Odd(trained.registry.uri), Told()
    registry.odd = first
    rows, names = unchanged_categories(splits, config, registry, told)
    assert [row.category for row in rows] == list(names) == [second]
    assert [line for line in told.lines if f"{first} is taken for changed: The registry" in line]
    registry.is_gone = True
    with pytest.raises(RegistryUnavailableError, match="is out of reach"):
        unchanged_categories(splits, config, registry, told)


def test_what_was_rolled_back_is_not_fitted_again_every_night(
    trained: Trained, tmp_path: Path
) -> None:
    """The gate would refuse it: the same pictures with the same settings make the same detector."""
    shutil.copy(trained.work_dir / "mlflow.db", tmp_path)
    registry = Registry(default_uri(str(tmp_path)))
    first, second = (result.category for result in trained.results)
    fitted = registry.resolve(first)
    created = registry.client.create_model_version(
        fitted.name, fitted.source, fitted.run_id, tags=dict.fromkeys(FINGERPRINT_TAGS, "other")
    )
    other = str(created.version)
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), trained.config)

    def unchanged() -> list[str]:
        rows, names = unchanged_categories(splits, trained.config, registry, QUIET)
        assert list(names) == [row.category for row in rows]
        decisions.update({row.category: (row.version, row.decision) for row in rows})
        return list(names)

    decisions: dict[str, tuple[str | None, str]] = {}
    registry.promote(first, other, {})
    assert unchanged() == [second]
    registry.promote(first, fitted.version, {})
    assert unchanged() == [first, second]
    registry.rollback(first)
    assert registry.resolve(first).version == other
    assert unchanged() == [first, second]
    version, decision = decisions[first]
    assert version == fitted.version
    assert f"was rolled back; version {other} is champion" in decision
    registry.promote(first, fitted.version, {})
    registry.promote(first, other, {})
    assert unchanged() == [second], "a person's choice is no rollback"
