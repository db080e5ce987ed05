"""The plan lists every picture once, in units named by what they hold."""

import dataclasses
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.errors import ConfigError, DataError, OutputError, RegistryError
from nfbmr.registry import Registry, default_uri
from nfbmr.score.plan import (
    CategoryRule,
    PlannedPicture,
    list_sources,
    load_plan,
    make_plan,
    save_plan,
)
from tests.conftest import Trained


@pytest.mark.parametrize(
    ("pattern", "member", "category"),
    [
        ("{category}/", "bottle/001.png", "bottle"),
        ("{category}/", "001.png", None),
        ("line-*/{category}/", "line-7/bottle/1.png", "bottle"),
        ("line-*/{category}/", "row-7/bottle/1.png", None),
        ("**/{category}/", "a/b/bottle/1.png", "bottle"),
        ("{category}_", "bottle_0001.png", "bottle"),
        ("(x){category}/", "(x)bottle/1.png", "bottle"),
    ],
)
def test_the_category_follows_from_the_name(
    pattern: str, member: str, category: str | None
) -> None:
    assert CategoryRule(pattern).category(member) == category
    assert CategoryRule(pattern, fixed="all").category(member) == "all"


def test_a_pattern_without_a_category_is_refused() -> None:
    with pytest.raises(ConfigError, match="--category-pattern '\\*/' does not say"):
        CategoryRule("*/")


@given(
    categories=st.lists(st.sampled_from(["a", "b", "line 3"]), min_size=1, max_size=60),
    unit_size=st.integers(1, 20),
)
def test_units_partition_the_pictures_and_hold_one_category_each(
    categories: list[str], unit_size: int
) -> None:
    from nfbmr.score.plan import _cut

    pictures = [
        PlannedPicture(f"x::{i}", "x", str(i), None, i, category)
        for i, category in enumerate(categories)
    ]
    ordered = sorted(pictures, key=lambda p: (p.category, p.image_uri))
    cut = _cut(ordered, unit_size)
    assert [dataclasses.replace(p, unit="") for p in cut] == ordered
    units: dict[str, list[PlannedPicture]] = {}
    for picture in cut:
        units.setdefault(picture.unit, []).append(picture)
    assert all(len(members) <= unit_size for members in units.values())
    assert all(len({p.category for p in members}) == 1 for members in units.values())
    assert [p.unit for p in _cut(ordered, unit_size)] == [p.unit for p in cut]


def test_a_plan_comes_back_as_it_was_saved(trained: Trained, tmp_path: Path) -> None:
    pictures = list_sources([trained.factory.archive], CategoryRule())
    assert len(pictures) == trained.settings.archive + 3
    plan = make_plan(pictures, {"sources": ["x"]}, trained.registry, "champion", 7)
    assert set(plan.models) == {result.category for result in trained.results}
    assert all(model.version.version == "1" for model in plan.models.values())
    assert load_plan(str(tmp_path)) is None
    save_plan(plan, str(tmp_path))
    assert load_plan(str(tmp_path)) == plan


def test_a_damaged_plan_says_so(trained: Trained, tmp_path: Path) -> None:
    pictures = list_sources([trained.factory.archive], CategoryRule())
    save_plan(make_plan(pictures, {}, trained.registry, "champion", 7), str(tmp_path))
    for name in ("pictures.parquet", "plan.json"):
        path = tmp_path / "_plan" / name
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(OutputError, match="is damaged"):
            load_plan(str(tmp_path))


def test_no_model_for_any_category_names_what_there_is(trained: Trained, tmp_path: Path) -> None:
    pictures = [PlannedPicture("a/1.png", "a", "1.png", None, None, "woven_fabrik")]
    with pytest.raises(RegistryError, match="Known: "):
        make_plan(pictures, {}, trained.registry, "champion", 7)
    pictures = list_sources([trained.factory.archive], CategoryRule())
    with pytest.raises(RegistryError, match=r"no version or alias 'chamfion'.*aliases"):
        make_plan(pictures, {}, trained.registry, "chamfion", 7)
    with pytest.raises(RegistryError, match=r"run jobs/train\.py first"):
        make_plan(pictures, {}, Registry(default_uri(str(tmp_path))), "champion", 7)


def test_pictures_without_any_category_say_how_to_give_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        for number in range(3):
            tar.addfile(tarfile.TarInfo(f"{number}.png"))
    with pytest.raises(DataError, match=r"None of the 3 pictures has a category.*--category NAME"):
        list_sources([str(tmp_path / "flat.tar")], CategoryRule())


def test_the_same_source_given_twice_is_listed_once(trained: Trained) -> None:
    once = list_sources([trained.factory.archive], CategoryRule())
    assert list_sources([trained.factory.archive] * 2, CategoryRule()) == once
