"""The plan lists every picture once, in units named by what they hold."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.errors import ConfigError, DataError, OutputError, RegistryError
from nfbmr.registry import Registry, default_uri
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.plan import PlannedPicture, make_plan, pictures_table
from nfbmr.score.plan_files import load_plan, save_plan, unit_pictures, unit_uris
from nfbmr.score.planned_units import cut_units
from nfbmr.score.sources import list_sources
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
@settings(deadline=None)
def test_units_partition_the_pictures_and_hold_one_category_each(
    categories: list[str], unit_size: int
) -> None:
    ordered = pictures_table(
        PlannedPicture(f"x::{i}", "x", str(i), None, i, "v", category)
        for i, category in enumerate(sorted(categories))
    )
    units = cut_units(ordered, unit_size)
    assert sum(unit.count for unit in units) == len(categories)
    assert all(1 <= unit.count <= unit_size for unit in units)
    assert len({unit.name for unit in units}) == len(units)
    assert cut_units(ordered, unit_size) == units
    for category in set(categories):
        own = [unit.count for unit in units if unit.category == category]
        assert sum(own) == categories.count(category)
        assert all(count == unit_size for count in own[:-1])


def test_units_find_their_own_pictures_in_the_saved_plan(trained: Trained, tmp_path: Path) -> None:
    """Over several row groups, in any order."""
    category = trained.results[0].category
    listed = pictures_table(
        PlannedPicture(f"x::{i:04d}", "x", f"{i}", i, i + 1, "v", category if i % 3 else "other")
        for i in range(1000)
    )
    plan, ordered = make_plan(listed, {}, trained.registry, "champion", 7)
    save_plan(plan, ordered, str(tmp_path))
    assert plan.units[-1].row_group > 2
    assert plan.counts() == {category: 666, "other": 334}
    assert "no model" in plan.model_errors["other"]
    uris = []
    for unit in reversed(plan.units):
        pictures = unit_pictures(str(tmp_path), plan.run_id, unit)
        assert {picture.category for picture in pictures} == {unit.category}
        assert [p.image_uri for p in pictures] == unit_uris(str(tmp_path), plan.run_id, unit)
        uris = [picture.image_uri for picture in pictures] + uris
    assert uris == ordered.column("image_uri").to_pylist()


def test_a_unit_is_named_by_what_it_holds() -> None:
    def name(**changes: object) -> str:
        values = {"offset": 0, "length": 5, "version": "v", "category": "a"} | changes
        table = pictures_table([PlannedPicture("x::1", "x", "1", **values)])  # type: ignore[arg-type]
        return cut_units(table, 10)[0].name

    assert name() == name(offset=512)
    assert len({name(), name(length=6), name(version="w"), name(category="b")}) == 4


def test_a_plan_comes_back_as_it_was_saved(trained: Trained, tmp_path: Path) -> None:
    pictures = list_sources([trained.factory.archive], CategoryRule())
    assert len(pictures) == trained.settings.archive + 3
    plan, ordered = make_plan(pictures, {"sources": ["x"]}, trained.registry, "champion", 7)
    assert set(plan.models) == {result.category for result in trained.results}
    assert all(model.version.version == "1" for model in plan.models.values())
    assert load_plan(str(tmp_path)) is None
    save_plan(plan, ordered, str(tmp_path))
    assert load_plan(str(tmp_path)) == plan


def test_a_damaged_plan_says_so(trained: Trained, tmp_path: Path) -> None:
    pictures = list_sources([trained.factory.archive], CategoryRule())
    save_plan(*make_plan(pictures, {}, trained.registry, "champion", 7), str(tmp_path))
    for name in ("pictures-00000.parquet", "units.parquet", "plan.json"):
        path = tmp_path / "_plan" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        with pytest.raises(OutputError, match="is damaged"):
            load_plan(str(tmp_path))
        path.write_bytes(whole)


def test_no_model_for_any_category_names_what_there_is(trained: Trained, tmp_path: Path) -> None:
    pictures = pictures_table(
        [PlannedPicture("a/1.png", "a", "1.png", None, None, None, "woven_fabrik")]
    )
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
    assert list_sources([trained.factory.archive] * 2, CategoryRule()).equals(once)
