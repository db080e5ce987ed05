"""The plan lists every picture once, in units named by what they hold."""

import itertools
import json
import pickle
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs.score
from nfbmr.errors import ConfigError, DataError, OutputError, RegistryError, WeightsError
from nfbmr.model.detector import JSON_FILE
from nfbmr.registry import Registry, default_uri
from nfbmr.score import planned_units
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.plan import Plan, PlannedPicture, make_plan, pictures_table
from nfbmr.score.plan_files import (
    PlanWriter,
    load_plan,
    planned_table,
    unit_pictures,
    unit_uris,
)
from nfbmr.score.planned_units import cut_units
from tests.conftest import Trained
from tests.registry.finished_fit import make_detector
from tests.score.committed_run import committed
from tests.score.planning import RUN_ID, listed, saved_plan


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
    pictures = pictures_table(
        PlannedPicture(f"x::{i:04d}", "x", f"{i}", i, i + 1, "v", category if i % 3 else "other")
        for i in range(1000)
    )
    plan = saved_plan([pictures], trained.registry, str(tmp_path))
    assert plan.units[-1].row_group > 2
    assert plan.counts() == {category: 666, "other": 334}
    assert "no model" in plan.model_errors["other"]
    assert uris_of(plan, tmp_path) == planned_table(plan, str(tmp_path))["image_uri"].to_pylist()


def uris_of(plan: Plan, output: Path) -> list[str]:
    """Names of all pictures, unit by unit, the last one read first."""
    uris: list[str] = []
    for unit in reversed(plan.units):
        own = unit_pictures(str(output), plan.run_id, unit)
        assert {picture.category for picture in own} == {unit.category}
        assert [p.image_uri for p in own] == unit_uris(str(output), plan.run_id, unit)
        uris = [picture.image_uri for picture in own] + uris
    return uris


def test_a_plan_made_in_chunks_is_that_of_one_piece_but_for_smaller_units(
    trained: Trained, tmp_path: Path
) -> None:
    category = trained.results[0].category
    pictures = pictures_table(
        PlannedPicture(f"x::{i:04d}", "x", f"{i}", i, i + 1, "v", category if i % 3 else "other")
        for i in range(5000)
    )
    bounds = [0, 1, 2500, 2500, 5000]
    chunks = [pictures.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    whole = saved_plan([pictures], trained.registry, str(tmp_path / "whole"), unit_size=2)
    plan = saved_plan(chunks, trained.registry, str(tmp_path / "chunks"), unit_size=2)
    assert plan.counts() == whole.counts()
    assert [unit.category for unit in plan.units] == sorted(unit.category for unit in plan.units)
    assert len(whole.units) <= len(plan.units) <= len(whole.units) + 2 * len(chunks)
    assert uris_of(plan, tmp_path / "chunks") == uris_of(whole, tmp_path / "whole")
    assert load_plan(str(tmp_path / "chunks")) == plan
    wanted = ["x::0000", "x::2499", "x::4999"]
    some = planned_table(plan, str(tmp_path / "chunks"), wanted)
    assert sorted(some["image_uri"].to_pylist()) == wanted
    assert len(list((tmp_path / "chunks" / "_plan").glob("pictures-*"))) == 3


def test_a_slice_of_units_takes_no_others_to_a_worker() -> None:
    pictures = pictures_table(
        PlannedPicture(f"x::{i}", "x", f"{i}", i, 1, "v", "a") for i in range(10_000)
    )
    units = cut_units(pictures, 1)
    some = pickle.loads(pickle.dumps(units[400:410]))  # noqa: S301, our own bytes
    assert some == units[400:410]
    assert len(pickle.dumps(units[400:410])) < len(pickle.dumps(units)) / 50
    names = {unit.name for unit in units[3:5]}
    assert units.named(names) == units[3:5]
    assert units.without({unit.name for unit in units[:9_990]}) == units[9_990:]


def test_of_two_drivers_that_plan_at_once_the_first_plan_stays(
    trained: Trained, tmp_path: Path
) -> None:
    pictures = listed([trained.factory.archive])
    writers = [PlanWriter(str(tmp_path), name) for name in ("first", "second")]
    for size, writer in enumerate(writers, start=5):
        writer.add(pictures, size)
    for writer in writers:
        writer.finish(Plan(writer.run_id, {}, {}, {}, writer.units()))
    plan = load_plan(str(tmp_path))
    assert plan is not None
    assert plan.run_id == "first"
    writers[1].discard()
    assert load_plan(str(tmp_path)) == plan
    assert len(uris_of(plan, tmp_path)) == len(pictures)
    assert not list((tmp_path / "_plan").glob("*second*"))


def test_a_unit_is_named_by_what_it_holds() -> None:
    def name(**changes: object) -> str:
        values = {"offset": 0, "length": 5, "version": "v", "category": "a"} | changes
        table = pictures_table([PlannedPicture("x::1", "x", "1", **values)])  # type: ignore[arg-type]
        return cut_units(table, 10)[0].name

    assert name() == name(offset=512)
    assert len({name(), name(length=6), name(version="w"), name(category="b")}) == 4


def test_a_plan_comes_back_as_it_was_saved(trained: Trained, tmp_path: Path) -> None:
    pictures = listed([trained.factory.archive])
    assert len(pictures) == trained.settings.archive + 3
    assert load_plan(str(tmp_path)) is None
    plan = saved_plan([pictures], trained.registry, str(tmp_path))
    assert set(plan.models) == {result.category for result in trained.results}
    assert all(model.version.version == "1" for model in plan.models.values())
    assert load_plan(str(tmp_path)) == plan


def test_a_damaged_plan_says_so(trained: Trained, tmp_path: Path) -> None:
    saved_plan([listed([trained.factory.archive])], trained.registry, str(tmp_path))
    names = (f"pictures-{RUN_ID}-00000.parquet", f"units-{RUN_ID}.parquet", "plan.json")
    for name in names:
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
    output = str(tmp_path / "output")
    with pytest.raises(RegistryError, match="Known: "):
        saved_plan([pictures], trained.registry, output)
    pictures = listed([trained.factory.archive])
    with pytest.raises(RegistryError, match=r"no version or alias 'chamfion'.*aliases"):
        saved_plan([pictures], trained.registry, output, "chamfion")
    with pytest.raises(RegistryError, match=r"run jobs/train\.py first"):
        saved_plan([pictures], Registry(default_uri(str(tmp_path))), output)


def test_pictures_without_any_category_say_how_to_give_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        for number in range(3):
            tar.addfile(tarfile.TarInfo(f"{number}.png"))
    with pytest.raises(DataError, match=r"None of the 3 pictures has a category.*--category NAME"):
        listed([str(tmp_path / "flat.tar")])


def test_the_same_source_given_twice_is_listed_once(trained: Trained) -> None:
    once = listed([trained.factory.archive])
    assert listed([trained.factory.archive] * 2).equals(once)


def test_a_run_id_that_is_a_path_is_refused(trained: Trained, tmp_path: Path) -> None:
    saved_plan([listed([trained.factory.archive])], trained.registry, str(tmp_path))
    path = tmp_path / "_plan" / "plan.json"
    path.write_text(path.read_text().replace(RUN_ID, f"../{RUN_ID}"))
    with pytest.raises(OutputError, match="no id of a run"):
        load_plan(str(tmp_path))


@given(
    lengths=st.lists(st.integers(0, 3 * planned_units.UNIT_BYTES // 2), min_size=1, max_size=40),
    unit_size=st.integers(1, 9),
)
def test_a_unit_holds_no_more_bytes_than_a_worker_can_bear(
    lengths: list[int], unit_size: int
) -> None:
    """But one picture at least."""
    pictures = pictures_table(
        PlannedPicture(f"/a/{n}", "/a", f"{n}", None, length, "v", "bottle")
        for n, length in enumerate(lengths)
    )
    units = cut_units(pictures, unit_size)
    place = 0
    for unit in units:
        own = lengths[place : place + unit.count]
        assert 1 <= unit.count <= unit_size
        assert unit.count == 1 or sum(own) <= planned_units.UNIT_BYTES
        place += unit.count
    assert place == len(lengths)
    small = [length // 1000 for length in lengths]
    assert len({unit.name for unit in units}) == len(units)
    few = pictures.set_column(4, "length", pa.array(small, pa.int64()))
    assert len(cut_units(few, unit_size)) == -(-len(lengths) // unit_size)


def test_a_dry_run_says_what_there_is_and_scores_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    line = [trained.factory.archive, "--output", str(output), "--work-dir", str(trained.work_dir)]
    assert jobs.score.main([*line, "--dry-run"]) == 0
    said = capsys.readouterr().err
    plan = load_plan(str(output))
    assert plan is not None
    assert plan.pictures == 43
    counts = ", ".join(f"{name} {count}" for name, count in sorted(plan.counts().items()))
    assert f"Planned 43 pictures in {len(plan.units)} units: {counts}" in said
    assert sorted(path.name for path in output.iterdir()) == ["_plan"]


def test_text_in_a_plan_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    """Found by fuzzing: the units could be loaded, and looking at one was a traceback."""
    committed(str(tmp_path))
    (path,) = (tmp_path / "_plan").glob("units-*.parquet")
    table = pq.read_table(path)
    size = path.stat().st_size
    broken = pa.array([b"\xff\xfe"] * len(table), pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, "category", broken), path)
    plan_json = tmp_path / "_plan" / "plan.json"
    text = plan_json.read_text().replace(f'"bytes": {size}', f'"bytes": {path.stat().st_size}')
    plan_json.write_text(text)
    with pytest.raises(OutputError, match="is damaged"):
        load_plan(str(tmp_path))


def test_a_detector_whose_backbone_nobody_could_build_is_its_categorys_error(
    tmp_path: Path,
) -> None:
    """It ends the scoring of no other category, neither now nor later."""
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    registry.prepare()
    for category in ("bottle", "screw"):
        folder = tmp_path / category
        make_detector(category).save(folder)
        if category == "screw":
            description = json.loads((folder / JSON_FILE).read_text())
            del description["backbone"]["layer"]
            (folder / JSON_FILE).write_text(json.dumps(description))
        registry.register(category, folder, params={}, metrics={}, curves=[], tags={})

    def plan(*categories: str) -> Plan:
        pictures = pictures_table(
            PlannedPicture(f"/a/{c}/1.png", "/a", f"{c}/1.png", None, 9, "v", c) for c in categories
        )
        return make_plan(RUN_ID, cut_units(pictures, 4), {}, registry, "challenger")

    assert plan("bottle").models["bottle"].weights == "embedded"
    damage = r"nfbmr-screw version 1 .*backbone\.layer is missing"
    both = plan("bottle", "screw")
    assert set(both.models) == {"bottle"}
    assert re.search(damage, both.model_errors["screw"])
    with pytest.raises(WeightsError, match=damage):
        plan("screw")
    stranger = registry.resolve("bottle", "challenger")
    registry.client.create_registered_model("nfbmr-nut")
    registry.client.create_model_version("nfbmr-nut", stranger.source, stranger.run_id)
    registry.client.set_registered_model_alias("nfbmr-nut", "challenger", "1")
    errors = plan("bottle", "nut").model_errors
    assert "is that of a detector for 'bottle', not for 'nut'" in errors["nut"]
