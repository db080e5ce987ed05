"""From pictures to tasks: what calibrates is not what was learned from, whatever it is called."""

import pytest

from nfbmr.config import load_config
from nfbmr.data.sample import NORMAL, Sample
from nfbmr.train.category_tasks import Preparation, make_tasks, split_categories
from nfbmr.train.entry_names import entry_name, entry_of_picture
from nfbmr.train.feature_index import FeatureIndex, Picture

CONFIG = load_config(preset="small", overrides=["calibration.false_alarm_rate=0.1"])


def samples(names: list[str], category: str = "bottle") -> list[Sample]:
    return [Sample(f"/data/{category}/{name}", category, "train", NORMAL) for name in names]


def prepared(contents: dict[str, str]) -> Preparation:
    entries = {}
    for uri, content in contents.items():
        entries[Picture(uri)] = content
        entries[Picture(uri, 1)] = entry_name(content, 1)
    return Preparation(CONFIG, "/cache", FeatureIndex("key", {}, entries, {}, dict(entries), 0))


def test_copies_never_calibrate_what_was_learned_from_them() -> None:
    """Found in review: the side followed from the file's name, so a copy could be on the other."""
    own = samples([f"{n}.png" for n in range(80)] + [f"{n} (copy).png" for n in range(80)])
    contents = {s.uri: s.uri.rpartition("/")[2].split(".")[0].split(" ")[0] for s in own}
    splits, failures = split_categories(own, CONFIG)
    assert not failures
    (task,), failed = make_tasks(splits, prepared(contents))
    assert not failed
    assert not set(task.fit_entries) & set(task.held_out_entries)
    assert len(set(task.fit_entries)) == len(task.fit_entries)
    assert len(set(task.held_out_entries)) == len(task.held_out_entries)
    assert set(task.fit_entries) | set(task.held_out_entries) == {str(n) for n in range(80)}


@pytest.mark.parametrize("count", [30, 80])
def test_a_synthetic_defect_without_its_picture_is_left_out(count: int) -> None:
    """30 pictures are cross-fitted, 80 are held out."""
    own = samples([f"{n}.png" for n in range(count)])
    splits, _ = split_categories(own, CONFIG)
    assert (splits["bottle"].folds > 0) is (count == 30)
    changed, unreadable, *others = [sample.uri for sample in splits["bottle"].held_out]
    preparation = prepared({s.uri: s.uri.rpartition("/")[2] for s in own})
    index = preparation.index
    index.entries[Picture(changed, 1)] = entry_name("changed", 1)
    del index.entries[Picture(unreadable)]
    index.errors[Picture(unreadable)] = "busy"
    (task,), failed = make_tasks(splits, preparation)
    assert not failed
    pictures = [entry_of_picture(entry) for entry in task.synthetic_entries]
    assert len(pictures) == len(others)
    assert set(pictures) <= set(task.held_out_entries)


def test_pictures_that_are_all_the_same_cannot_promise_a_rate() -> None:
    own = samples([f"{n}.png" for n in range(80)])
    splits, _ = split_categories(own, CONFIG)
    tasks, failures = make_tasks(splits, prepared({s.uri: "same" for s in own}))
    assert not tasks
    assert "the others are copies" in failures[0].decision


def test_a_name_that_is_no_utf8_is_split_like_any_other() -> None:
    """Found in review: one such name in one category ended the whole night."""
    splits, failures = split_categories(samples([f"{n}\udcff.png" for n in range(80)]), CONFIG)
    assert not failures
    assert len(splits["bottle"].pictures) == 80


@pytest.mark.parametrize("category", ["o'ring", "a:b", 'a"b', "x" * 201, "Pr\udcfcfung"])
def test_a_category_that_cannot_be_registered_is_not_fitted(category: str) -> None:
    """Found in review: it was found out after the fit, every night."""
    both = samples([f"{n}.png" for n in range(80)], category)
    both += samples([f"{n}.png" for n in range(80)])
    splits, failures = split_categories(both, CONFIG)
    assert list(splits) == ["bottle"]
    assert "cannot be registered" in failures[0].decision
