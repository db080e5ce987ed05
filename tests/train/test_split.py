"""Held-out normals: stable from night to night, enough for the promised rate, or an error."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError
from nfbmr.fit_settings import CalibrationSettings
from nfbmr.gate_settings import GateSettings
from nfbmr.train.split import (
    labelled_pictures,
    needed_to_calibrate,
    split_normals,
    topped_up,
)

SETTINGS = CalibrationSettings(held_out_share=0.2, false_alarm_rate=0.05)


def normals(count: int, category: str = "bottle", root: str = "/data") -> list[Sample]:
    return [
        Sample(
            f"{root}/{i:04d}.png",
            category=category,
            split="train",
            defect_type="good",
            mask_uri=None,
        )
        for i in range(count)
    ]


def test_every_normal_is_on_one_side() -> None:
    samples = normals(100) + normals(50, "cable")
    split = split_normals(samples, "bottle", SETTINGS, seed=0)
    assert len(split.held_out) == 20
    assert {s.uri for s in split.fit} | {s.uri for s in split.held_out} == {
        s.uri for s in samples if s.category == "bottle"
    }
    assert not {s.uri for s in split.fit} & {s.uri for s in split.held_out}


def test_test_pictures_are_never_trained_on() -> None:
    test = [
        Sample(
            f"/data/t{i}.png", category="bottle", split="test", defect_type="good", mask_uri=None
        )
        for i in range(50)
    ]
    split = split_normals([*normals(100), *test], "bottle", SETTINGS, seed=0)
    assert not {s.uri for s in test} & {s.uri for s in [*split.fit, *split.held_out]}


def test_order_and_place_of_the_files_do_not_matter_but_the_seed_does() -> None:
    def held_out(samples: list[Sample], seed: int = 0) -> set[str]:
        split = split_normals(samples, "bottle", SETTINGS, seed)
        return {s.uri.rpartition("/")[2] for s in split.held_out}

    assert (
        held_out(normals(100)) == held_out(normals(100)[::-1]) == held_out(normals(100, root="/b"))
    )
    assert held_out(normals(100)) != held_out(normals(100), seed=1)


def test_new_pictures_move_few_old_ones() -> None:
    before = split_normals(normals(1000), "bottle", SETTINGS, 0)
    after = split_normals(normals(1050), "bottle", SETTINGS, 0)
    moved = {s.uri for s in before.held_out} & {s.uri for s in after.fit}
    assert len(moved) <= 10


def nested(root: Path, days: range, views: Sequence[str] = ("top", "left", "right")) -> Path:
    for day, view in itertools.product(days, views):
        path = root / "lid" / "normal" / f"2026-{day // 28 + 1:02d}-{day % 28 + 1:02d}" / view
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".jpg").touch()
    return root


def held_out_of(root: Path) -> tuple[set[str], set[str]]:
    """Names that are held out, and all of them, below the folder of normal pictures."""
    split = split_normals(discover(str(root), "folder"), "lid", SETTINGS, 0)
    own = f"{root}/lid/normal/"
    held_out = {s.uri.removeprefix(own) for s in split.held_out}
    return held_out, {s.uri.removeprefix(own) for s in split.pictures}


def test_names_that_every_folder_has_are_on_both_sides(tmp_path: Path) -> None:
    """Held-out pictures must be such as production brings: of all views and of all days."""
    held_out, of_all = held_out_of(nested(tmp_path, range(140)))
    for view in ("top", "left", "right"):
        share = sum(view in name for name in held_out) / sum(view in name for name in of_all)
        assert 0.1 < share < 0.3, view
    days = {name.partition("/")[0] for name in held_out}
    assert {day[:7] for day in days} == {f"2026-0{month}" for month in range(1, 6)}


def test_one_name_in_all_folders_does_not_hold_out_the_oldest(tmp_path: Path) -> None:
    held_out, of_all = held_out_of(nested(tmp_path, range(140), ["top"]))
    days = sorted(name.partition("/")[0] for name in of_all)
    half = days[len(days) // 2]
    assert 5 < sum(name >= half for name in held_out) < len(held_out) - 5


def test_folders_that_come_later_leave_the_others_where_they_were(tmp_path: Path) -> None:
    before, of_all = held_out_of(nested(tmp_path, range(140)))
    after, _ = held_out_of(nested(tmp_path, range(140, 150)))
    assert len(before - after) <= 10
    assert len((after & of_all) - before) <= 10


@given(st.sets(st.text("abc123é ", min_size=1, max_size=6), min_size=2, max_size=40), st.integers())
@settings(deadline=None)
def test_in_a_flat_folder_the_name_alone_decides(names: set[str], seed: int) -> None:
    """What was measured on flat data sets stays measured: hash, order and sides are the same."""
    samples = [Sample(f"/d/lid/good/{name}.png", "lid", "train") for name in names]
    few = replace(SETTINGS, false_alarm_rate=0.9, folds=2)

    def digest(sample: Sample) -> str:
        text = f"{seed}:{sample.uri.rpartition('/')[2]}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    assert split_normals(samples, "lid", few, seed).fit == sorted(samples, key=digest)


def test_a_category_without_normals_is_named() -> None:
    with pytest.raises(DataError, match="'cable' has no normal pictures"):
        split_normals(normals(100), "cable", SETTINGS, 0)


@pytest.mark.parametrize("count", [1, 10, 94])
def test_too_few_to_hold_out_says_how_many_are_needed(count: int) -> None:
    settings = replace(SETTINGS, folds=1)
    with pytest.raises(DataError, match="at least 95 normal pictures"):
        split_normals(normals(count), "bottle", settings, 0)
    assert len(split_normals(normals(95), "bottle", settings, 0).held_out) == 19


@pytest.mark.parametrize(("count", "folds"), [(19, 5), (59, 5), (94, 5), (95, 0), (500, 0)])
def test_few_pictures_all_calibrate_and_are_all_fitted_on(count: int, folds: int) -> None:
    split = split_normals(normals(count), "bottle", SETTINGS, 0)
    assert split.folds == folds
    assert len(split.pictures) == len({s.uri for s in split.pictures}) == count
    if folds:
        assert split.fit == split.held_out == split.pictures


def test_the_settings_choose_the_folds() -> None:
    assert split_normals(normals(500), "bottle", replace(SETTINGS, folds=10), 0).folds == 10
    many = replace(SETTINGS, cross_fit_below=501)
    assert split_normals(normals(500), "bottle", many, 0).folds == 5


@pytest.mark.parametrize("count", [1, 18])
def test_too_few_for_the_rate_even_with_all_of_them(count: int) -> None:
    with pytest.raises(DataError, match="needs at least 19 normal pictures"):
        split_normals(normals(count), "bottle", SETTINGS, 0)
    loose = replace(SETTINGS, false_alarm_rate=0.5, folds=7)
    with pytest.raises(DataError, match="in 7 folds at least 7"):
        split_normals(normals(6), "bottle", loose, 0)


def test_no_more_are_held_out_than_asked() -> None:
    settings = CalibrationSettings(held_out_share=0.5, max_held_out=30, false_alarm_rate=0.05)
    assert len(split_normals(normals(1000), "bottle", settings, 0).held_out) == 30


def labelled(normal: int, defective: int, category: str = "bottle") -> list[Sample]:
    kinds = ["good"] * normal + ["scratch"] * defective
    return [Sample(f"/data/t{i:04d}.png", category, "test", kind) for i, kind in enumerate(kinds)]


def test_labelled_pictures_are_test_pictures_of_the_category_and_enough_of_both_kinds() -> None:
    settings = GateSettings(labelled_needed=10, max_labelled=100)
    samples = [*normals(50), *labelled(30, 10), *labelled(30, 30, "cable")]
    chosen = labelled_pictures(samples, "bottle", settings)
    assert {s.uri for s in chosen} == {s.uri for s in labelled(30, 10)}
    assert labelled_pictures(labelled(30, 9), "bottle", settings) == []
    off = GateSettings(labelled=False)
    assert labelled_pictures(labelled(30, 30), "bottle", off) == []


def test_of_many_labelled_pictures_a_fixed_share_of_each_kind_is_used() -> None:
    settings = GateSettings(labelled_needed=10, max_labelled=100)
    chosen = labelled_pictures(labelled(900, 100), "bottle", settings)
    assert [s.is_defective for s in chosen].count(True) == 10
    assert [s.is_defective for s in chosen].count(False) == 90
    assert labelled_pictures(labelled(900, 100)[::-1], "bottle", settings) == chosen


def test_labelled_pictures_are_chosen_from_all_folders() -> None:
    settings = GateSettings(labelled_needed=10, max_labelled=100)
    samples = [
        Sample(f"/d/lid/{kind}/{day:03d}/{view}.jpg", "lid", "test", defect, folder=f"{day:03d}")
        for kind, defect in (("normal", "good"), ("defective/scratch", "scratch"))
        for day in range(100)
        for view in ("top", "left", "right")
    ]
    chosen = labelled_pictures(samples, "lid", settings)
    for is_defective in (False, True):
        names = [s.name.split("/") for s in chosen if s.is_defective is is_defective]
        assert {view for _, view in names} == {"top.jpg", "left.jpg", "right.jpg"}
        assert max(day for day, _ in names) > "050" > min(day for day, _ in names)


def test_held_out_pictures_that_cannot_be_read_are_made_up_for() -> None:
    """Only as many as the rate needs; where nothing is left to take them from, it says so."""
    samples = [Sample(f"/d/{n:03d}.png", "bottle", "train") for n in range(100)]
    settings = CalibrationSettings(false_alarm_rate=0.05, held_out_share=0.2, folds=1)
    split = split_normals(samples, "bottle", settings, 0)
    needed = needed_to_calibrate(settings)
    assert (len(split.held_out), needed) == (20, 19)
    lost = [sample.uri for sample in split.held_out[:3]]
    assert topped_up(split, lost[:1], settings) == split
    whole = topped_up(split, lost, settings)
    readable = [sample for sample in whole.held_out if sample.uri not in lost]
    assert len(readable) == needed
    assert len(whole.fit) == len(split.fit) - 2
    assert sorted(s.uri for s in whole.pictures) == sorted(s.uri for s in split.pictures)
    with pytest.raises(DataError, match="1 of 20 pictures to calibrate with can be read"):
        topped_up(split, [s.uri for s in [*split.held_out[1:], *split.fit]], settings)
