"""Features by groups of categories: every category once, the trouble of one is its own."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.config import load_config
from nfbmr.data.sample import Sample
from nfbmr.errors import StallError, WorkerError
from nfbmr.progress import Progress
from nfbmr.train.campaign_features import CampaignFeatures, groups_of
from nfbmr.train.category_tasks import pictures_of
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.split import Split


def split_of(name: str, count: int) -> Split:
    samples = [Sample(f"/{name}/{i}.png", name, "train") for i in range(count)]
    held_out = count // 5
    return Split(fit=samples[held_out:], held_out=samples[:held_out])


@given(
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 30), min_size=1),
    limit=st.integers(1, 60),
    wanted=st.integers(1, 20),
    data=st.data(),
)
def test_groups_hold_every_category_once_in_order(
    counts: Mapping[str, int], limit: int, wanted: int, data: st.DataObject
) -> None:
    """So many that all places for fits have work, unless there would be far too many pictures."""
    first = frozenset(data.draw(st.sets(st.sampled_from(sorted(counts)))))
    splits = {name: split_of(name, count) for name, count in counts.items()}
    groups = list(groups_of(splits, first, limit, wanted))
    order = [name for group in groups for name in group]
    assert order == sorted(counts, key=lambda name: (name not in first, -counts[name], name))
    sizes = [sum(counts[name] for name in group) for group in groups]
    for group, size in zip(groups, sizes, strict=True):
        assert len(group) == 1 or size <= 10 * limit
        assert len(group) <= wanted or size <= limit
    for group, size, after in zip(groups, sizes, groups[1:], strict=False):
        more = size + counts[next(iter(after))]
        assert more > limit
        assert len(group) >= wanted or more > 10 * limit


def test_copies_with_synthetic_defects_are_made_for_the_gate_whatever_the_aggregate() -> None:
    split = split_of("bottle", 10)
    variants = [picture for picture in pictures_of(split) if picture.variant]
    assert [picture.uri for picture in variants] == [sample.uri for sample in split.held_out]


class Breaking(CampaignFeatures):
    """Whose pass breaks when one category is in it, as one picture that kills a worker does."""

    def _pass(self, splits: Mapping[str, Split]) -> FeatureIndex:
        if "bad" in splits:
            raise WorkerError("A worker was killed.")
        pictures = [p for split in splits.values() for p in pictures_of(split)]
        entries = {picture: f"{picture.uri}-{picture.variant}" for picture in pictures}
        return FeatureIndex("key", {}, entries, {}, entries, len(entries))


class Stalling(CampaignFeatures):
    """Of whose pass nothing comes any more once it has come to a category, or never."""

    hung: frozenset[str] = frozenset()
    before: int = 0
    passes: int = 0

    def _pass(self, splits: Mapping[str, Split]) -> FeatureIndex:
        self.passes += 1
        if self.hung & set(splits):
            self._finished = self.before
            raise StallError("No picture was finished.")
        pictures = [p for split in splits.values() for p in pictures_of(split)]
        entries = {picture: f"{picture.uri}-{picture.variant}" for picture in pictures}
        return FeatureIndex("key", {}, entries, {}, entries, len(entries))


def stalling(hung: str, before: int, *overrides: str) -> Stalling:
    config = load_config(None, overrides, "small")
    features = Stalling(config, "/nowhere", Progress(quiet=True))
    features.hung, features.before = frozenset(hung), before
    features.backbone_key, features._entry_bytes = "key", 1  # Not looked up by every example.
    return features


def test_where_no_worker_can_begin_a_pass_that_stalls_is_not_repeated(local_ray: None) -> None:
    """Every category by itself would wait as long again, and in vain."""
    for overrides in (["run.gpus=1"], ["run.cpus_per_actor=10000"]):
        features = stalling("abcd", 0, *overrides)
        with pytest.raises(StallError):
            features.compute({name: split_of(name, 5) for name in "abcd"})
        assert features.passes == 1


def test_workers_that_are_never_free_are_not_waited_for_by_every_category(local_ray: None) -> None:
    features = stalling("abcd", 0)
    with pytest.raises(StallError):
        features.compute({name: split_of(name, 5) for name in "abcd"})
    assert features.passes == 3


@given(hung=st.text("abcd", min_size=1), left=st.integers(0, 4))
def test_a_stall_is_the_matter_of_the_category_whose_pictures_hang(hung: str, left: int) -> None:
    """Each has its own wait, as long as another category may begin."""
    features = stalling(hung, 1)
    turns = iter([True] * left + [False] * 4)
    features.may_start = lambda: next(turns)
    index, rows = features.compute({name: split_of(name, 5) for name in "abcd"})
    begun = set("abcd"[:left])
    outcomes = {row.category: row.outcome for row in rows}
    late = set("abcd") - begun
    assert outcomes == dict.fromkeys(begun & set(hung), "failed") | dict.fromkeys(
        late, "not started"
    )
    good = {picture.uri.split("/")[1] for picture in index.entries} if index else set()
    assert good == begun - set(hung)
    assert features.passes == 1 + left


def test_a_category_that_hangs_before_anything_is_finished_costs_the_others_nothing(
    local_ray: None,
) -> None:
    index, rows = stalling("a", 0).compute({name: split_of(name, 5) for name in "abc"})
    assert [(row.category, row.outcome) for row in rows] == [("a", "failed")]
    assert index is not None


def test_a_group_of_one_that_stalls_ends_as_a_whole_one_does() -> None:
    with pytest.raises(StallError):
        stalling("a", 1).compute({"a": split_of("a", 5)})


@pytest.mark.parametrize("others", [["good", "better"], ["good"], []])
def test_a_pass_that_breaks_is_repeated_category_by_category(others: list[str]) -> None:
    features = Breaking(load_config(None, (), "small"), "/nowhere", Progress(quiet=True))
    splits = {name: split_of(name, 5) for name in ["bad", *others]}
    index, failures = features.compute(splits)
    assert [(r.category, r.outcome, r.decision) for r in failures] == [
        ("bad", "failed", "A worker was killed.")
    ]
    if not others:
        assert index is None
        return
    assert index is not None
    assert {picture.uri.split("/")[1] for picture in index.entries} == set(others)
    assert index.computed == 6 * len(others)
    assert features.needed == set(index.entries.values())
    assert Picture("/good/0.png", 1) in index.entries


def test_category_by_category_the_time_is_asked_for() -> None:
    """Those that were not begun wait for the same command."""
    left = [True, True, False, False]
    features = Breaking(
        load_config(None, (), "small"),
        "/nowhere",
        Progress(quiet=True),
        may_start=lambda: left.pop(0),
    )
    splits = {name: split_of(name, 5) for name in ("bad", "good", "late", "later")}
    index, rows = features.compute(splits)
    outcomes = {row.category: row.outcome for row in rows}
    assert outcomes == {"bad": "failed", "late": "not started", "later": "not started"}
    assert index is not None
    assert {picture.uri.split("/")[1] for picture in index.entries} == {"good"}


class OnAFullDisk(CampaignFeatures):
    """Whose pass finds no room while the features of another backbone are there."""

    passes = 0

    def _pass(self, splits: Mapping[str, Split]) -> FeatureIndex:
        self.passes += 1
        if FeatureCache(self.root, "old").names().size:
            raise WorkerError("A worker failed: OSError: [Errno 28] No space left on device.")
        entries = {p: p.uri for split in splits.values() for p in pictures_of(split)}
        return FeatureIndex(self.backbone_key, {}, entries, {}, entries, len(entries))


@pytest.mark.parametrize("limit_gib", [100, 0])
def test_old_features_make_way_once_where_the_disk_is_full(limit_gib: int, tmp_path: Path) -> None:
    """A limit of 0 says that nothing is ever removed."""
    FeatureCache(str(tmp_path), "old").write("00", torch.zeros(8, 8, 8))
    config = load_config(None, [f"night.cache_gib={limit_gib}"], "small")
    features = OnAFullDisk(config, str(tmp_path), Progress(quiet=True))
    index, rows = features.compute({"nut": split_of("nut", 5)})
    if limit_gib:
        assert (index is not None, rows, features.passes) == (True, [], 2)
    else:
        assert [row.outcome for row in rows] == ["failed"]
        assert features.passes == 1


def test_the_cache_is_bounded_where_no_pass_ever_came_through(tmp_path: Path) -> None:
    """The backbone's key is known without."""
    for entry in ("00", "11"):
        FeatureCache(str(tmp_path), "old").write(entry, torch.zeros(8, 8, 8))
    config = load_config(None, [f"night.cache_gib={1200 / 2**30}"], "small")
    features = CampaignFeatures(config, str(tmp_path), Progress(quiet=True))
    features.bound_cache()
    assert FeatureCache(str(tmp_path), "old").names().size == 1


def test_before_a_group_old_features_make_way_for_its_own(tmp_path: Path) -> None:
    for entry in ("00", "11"):
        FeatureCache(str(tmp_path), "old").write(entry, torch.zeros(8, 8, 8))
    config = load_config(None, [f"night.cache_gib={4000 / 2**30}"], "small")
    features = OnAFullDisk(config, str(tmp_path), Progress(quiet=True))
    index, _ = features.compute({"nut": split_of("nut", 50)})
    assert index is not None
    assert features.passes == 1
