"""Categories that were fitted on the same pictures with the same settings are left out."""

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.config import Config, load_config
from nfbmr.data.layouts import discover, discover_all
from nfbmr.data.sample import Sample
from nfbmr.errors import RegistryUnavailableError, StoreError
from nfbmr.model_version import ModelVersion
from nfbmr.registry import CHAMPION, Registry, default_uri
from nfbmr.train import unchanged
from nfbmr.train.campaign import (
    CampaignOptions,
    CampaignPaths,
    CategoryResult,
    run_campaign,
)
from nfbmr.train.category_tasks import split_categories
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.hash_memory import HashMemory
from nfbmr.train.split import Split
from nfbmr.train.unchanged import Comparison, unchanged_categories
from tests.conftest import Trained
from tests.train.campaigns import QUIET, Told


@dataclass(frozen=True)
class Asked(CampaignOptions):
    """Whose time is over once it was asked so many times: first, and before every comparison."""

    only_changed: bool = True
    times: int = 0
    asked: list[None] = field(default_factory=list)

    def may_start(self) -> bool:
        self.asked.append(None)
        return len(self.asked) <= self.times


def test_unchanged_categories_are_left_out(trained: Trained, tmp_path: Path) -> None:
    """Nothing is fitted here: what has changed finds no time to begin."""
    first, second = (result.category for result in trained.results)

    def outcomes(data: Path | str, config: Config) -> list[str]:
        paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
        arguments = (str(data), "mvtec", None, config, paths, trained.registry, QUIET)
        return [result.outcome for result in run_campaign(*arguments, Asked(times=2))]

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


def test_when_time_is_over_nothing_is_read_and_finished_rows_stay(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a driver that died shortly before its time: none of the pictures is asked for."""
    monkeypatch.setattr(unchanged, "content_hashes", never)
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    over = CampaignOptions(only_changed=True, until=time.time() - 1)
    arguments = (str(trained.factory.root), "mvtec", None, trained.config, paths)
    rows = run_campaign(*arguments, trained.registry, QUIET, over)
    assert [row.outcome for row in rows] == ["not started", "not started"]
    second = rows[1].category
    (night,) = (tmp_path / "checkpoints" / "nights").glob("*/night.json")
    own = CategoryResult(second, "registered", version="1", seconds=3.0, finished_at="2026-11-26")
    noted = night.with_name(f"{second}.{'0' * 16}.result.json")
    noted.write_text(json.dumps(own.as_dict()))
    rows = run_campaign(*arguments, trained.registry, QUIET, over)
    assert [row.outcome for row in rows] == ["not started", "registered"]


def never(*arguments: object, **named: object) -> NoReturn:
    raise AssertionError(f"pictures were read: {arguments}")


def test_other_settings_are_noticed_before_any_picture_is_read(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "content_hashes", never)
    other = replace(trained.config, fit=replace(trained.config.fit, weight_decay=1e-4))
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), other)
    assert unchanged_categories(splits, other, trained.registry, QUIET) == ([], {})
    nothing_yet = Registry(default_uri(str(tmp_path)))
    assert unchanged_categories(splits, trained.config, nothing_yet, QUIET) == ([], {})


def test_a_night_that_ends_while_it_compares_has_compared_something(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next time it begins with the rest, and what was read is not read again."""
    monkeypatch.setattr(unchanged, "COMPARED_AT_ONCE", 1)
    paths = CampaignPaths.under(str(tmp_path))

    def rows(times: int) -> dict[str, str]:
        arguments = (str(trained.factory.root), "mvtec", None, trained.config, paths)
        results = run_campaign(*arguments, trained.registry, QUIET, Asked(times=times))
        return {row.category: row.outcome for row in results}

    first, second = sorted(result.category for result in trained.results)
    assert rows(2) == {first: "unchanged", second: "not started"}
    assert rows(2) == {first: "unchanged", second: "unchanged"}


def test_a_store_that_fails_while_pictures_are_compared_fails_no_others(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(result.category for result in trained.results)
    real = unchanged.content_hashes

    def gone(pictures: Sequence[Picture], *arguments: Any) -> FeatureIndex:
        if any(f"/{first}/" in picture.uri for picture in pictures):
            raise StoreError("The store gives no picture any more.")
        return real(pictures, *arguments)

    monkeypatch.setattr(unchanged, "COMPARED_AT_ONCE", 1)
    monkeypatch.setattr(unchanged, "content_hashes", gone)
    paths = CampaignPaths.under(str(tmp_path))
    arguments = (str(trained.factory.root), "mvtec", None, trained.config, paths)
    rows = run_campaign(*arguments, trained.registry, QUIET, Asked(times=9))
    assert {row.category: row.outcome for row in rows} == {first: "failed", second: "unchanged"}
    assert "gives no picture" in rows[0].decision


def test_pictures_that_have_not_changed_are_read_in_one_night_alone(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(result.category for result in trained.results)
    data = tmp_path / "data"
    shutil.copytree(trained.factory.root, data)
    read: list[str] = []
    real = unchanged.content_hashes

    def counted(pictures: Sequence[Picture], *arguments: Any) -> FeatureIndex:
        read.extend(picture.uri for picture in pictures)
        return real(pictures, *arguments)

    monkeypatch.setattr(unchanged, "content_hashes", counted)

    def left_out() -> list[str]:
        read.clear()
        found = discover_all(str(data), "mvtec")
        memory = HashMemory(str(tmp_path / "hashes"), str(data), found.versions, QUIET)
        splits, _ = split_categories(found.samples, trained.config)
        comparison = Comparison(trained.config, trained.registry, QUIET, memory)
        comparison.look_up(splits)
        (batch,) = comparison.batches(splits)
        rows, names = comparison.unchanged(batch)
        assert names.keys() == {row.category for row in rows}
        return [row.category for row in rows]

    assert left_out() == [first, second]
    splits, _ = split_categories(discover(str(data), "mvtec"), trained.config)
    assert len(read) == sum(len(split.pictures) for split in splits.values())
    assert left_out() == [first, second]
    assert read == []
    one = min((data / first / "train" / "good").iterdir())
    shutil.copy(max((data / first / "train" / "good").iterdir()), one)
    assert left_out() == [second]
    assert read == [str(one)]


@given(st.lists(st.tuples(st.integers(1, 90_000), st.booleans()), min_size=1, max_size=9))
@settings(max_examples=20, deadline=None)
def test_batches_hold_all_categories_in_order_and_not_too_many_pictures(
    own: list[tuple[int, bool]],
) -> None:
    """Those that are fitted anyway cost no comparison, whatever their size."""
    sample = Sample("/d/1.png", "lid", "train")
    splits = {str(n): Split([sample] * count, []) for n, (count, _) in enumerate(own)}
    comparison = Comparison(load_config(None, [], "small"), Registry("unused"), QUIET)
    comparison.before = {str(n): iter(()) for n, (_, is_compared) in enumerate(own) if is_compared}
    batches = list(comparison.batches(splits))
    assert [name for batch in batches for name in batch] == list(splits)
    compared = [
        sum(len(split.fit) for name, split in batch.items() if name in comparison.before)
        for batch in batches
    ]
    assert all(count <= unchanged.COMPARED_AT_ONCE for count in compared)
    pairs = itertools.pairwise(batches)
    assert all(next(iter(batch)) in comparison.before for _, batch in pairs)


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
