"""What is written is read; what is damaged is missing, never trusted."""

import gzip
import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfbmr import storage
from nfbmr.errors import FeaturesError
from nfbmr.train.cache_eviction import evict, make_room
from nfbmr.train.feature_cache import FeatureCache, _digest, is_among


@pytest.fixture(params=["disk", "object store"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureCache:
    if request.param == "disk":
        return FeatureCache(str(tmp_path), "key")
    return FeatureCache(request.getfixturevalue("s3_bucket"), "key")


def test_features_come_back_rounded_to_half_precision(cache: FeatureCache) -> None:
    first, second = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    cache.write("aa01", first)
    cache.write("bb02", second)
    y_NCHW = cache.load(["bb02", "aa01", "bb02"])
    assert y_NCHW.dtype == torch.float16
    assert torch.equal(y_NCHW, torch.stack([second, first, second]).half())
    assert cache.names().tolist() == [b"aa01", b"bb02"]
    assert [is_among(cache.names(), n) for n in ("aa0", "aa01", "bb02", "zz")] == [0, 1, 1, 0]


def test_what_half_precision_cannot_hold_is_clipped_not_infinite(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.full((1, 1, 2), 1e6))
    read = cache.read("aa")
    assert read is not None
    assert torch.isfinite(read).all()


def test_another_backbone_has_another_cache(tmp_path: Path) -> None:
    FeatureCache(str(tmp_path), "one").write("aa", torch.zeros(1, 1, 1))
    assert FeatureCache(str(tmp_path), "other").read("aa") is None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_any_changed_or_missing_byte_makes_an_entry_missing(
    tmp_path: Path, place: int, flip: int, cut: bool
) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.randn(2, 3, 4))
    path = next(tmp_path.rglob("*.features"))
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= flip
    path.write_bytes(bytes(data))
    assert cache.read("aa") is None
    with pytest.raises(FeaturesError, match="1 of 1 features are not in the cache"):
        cache.load(["aa"])


class Planted:
    """What a pickle in the cache would do to whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT)


def test_a_pickle_planted_as_an_entry_is_not_loaded(tmp_path: Path) -> None:
    """Not even with the right digest in front of it."""
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.randn(2, 3, 4))
    path = next(tmp_path.rglob("*.features"))
    planted = pickle.dumps(Planted(tmp_path / "executed"))
    for data in (planted, _digest(planted) + planted):
        path.write_bytes(data)
        assert cache.read("aa") is None
    assert not (tmp_path / "executed").exists()


MIB = 2.0**-10


def names(cache: FeatureCache) -> list[str]:
    return [name.decode() for name in cache.names().tolist()]


def test_what_was_not_used_for_longest_goes_and_what_is_needed_stays(cache: FeatureCache) -> None:
    """Five entries of 0.5 MiB; the campaigns use them in an order of their own."""
    root = cache.root.rpartition("/")[0]
    entries = [f"{i}{i}" for i in range(5)]
    for entry in entries:
        cache.write(entry, torch.zeros(64, 64, 64))
    assert evict(root, "key", ["00", "11"], 0).removed == 0
    assert evict(root, "key", ["33"], 100 * MIB).removed == 0
    assert names(cache) == entries
    age_uses(root, {"00": 3, "11": 2, "33": 9, "22": 7, "44": 8})
    done = evict(root, "key", ["00"], 1.6 * MIB)
    assert (done.removed, names(cache)) == (2, ["00", "33", "44"])
    assert done.size_gib == pytest.approx(1.5 * MIB, rel=0.01)
    done = evict(root, "key", ["33", "44"], 0.6 * MIB)
    assert (done.removed, names(cache)) == (1, ["33", "44"])
    assert done.needed_gib == done.size_gib > 0.6 * MIB
    assert evict(root, "key", ["33"], 0.6 * MIB).removed == 1
    assert names(cache) == ["33"]


def age_uses(root: str, ages: dict[str, int]) -> None:
    """Write the note of what was used when as if time had passed."""
    uses = {f"key/{entry}/{entry}.features": float(used) for entry, used in ages.items()}
    storage.write_atomically(f"{root}/last_used.json.gz", gzip.compress(json.dumps(uses).encode()))


def test_a_damaged_note_of_uses_is_no_reason_to_stop(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    for entry in ("aa", "bb"):
        cache.write(entry, torch.zeros(64, 64, 64))
    evict(str(tmp_path), "key", ["aa", "bb"], 0)
    note = next(tmp_path.glob("last_used*"))
    for damaged in (b"", b"\x1f\x8b garbage", note.read_bytes()[:-9], note.read_bytes()[:20]):
        note.write_bytes(damaged)
        assert evict(str(tmp_path), "key", ["aa"], 0).removed == 0
    assert evict(str(tmp_path), "key", ["bb"], 0.6 * MIB).removed == 1
    assert names(cache) == ["bb"]


def test_abandoned_partial_files_are_swept_after_a_day(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.zeros(1, 1, 1))
    folder = next(tmp_path.rglob("*.features")).parent
    old, new = folder / ".old.partial", folder / ".new.partial"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    evict(str(tmp_path), "key", [], 0)
    assert not old.exists()
    assert new.exists()
    assert names(cache) == ["aa"]


ENTRY = 2 * 64 * 64 * 64


def of_backbone(root: Path, key: str, entries: Iterable[str]) -> None:
    cache = FeatureCache(str(root), key)
    for entry in entries:
        cache.write(entry, torch.zeros(64, 64, 64))


def left(root: Path) -> set[str]:
    found = root.rglob("*.features")
    return {f"{path.parents[1].name}/{path.stem}" for path in found}


def test_features_of_another_backbone_make_way_before_new_ones_come(tmp_path: Path) -> None:
    """Four entries of 0.5 MiB and a limit of 2: the new ones would lie beside the old ones."""
    of_backbone(tmp_path, "old", ["00", "11", "22", "33"])
    evict(str(tmp_path), "old", ["00", "11", "22", "33"], 0)
    limit = 2.01 * MIB
    assert make_room(str(tmp_path), "new", [], limit, 0).removed == 0
    assert make_room(str(tmp_path), "new", [], limit, 2 * ENTRY).removed == 2
    assert left(tmp_path) == {"old/22", "old/33"}
    of_backbone(tmp_path, "new", ["44", "55"])
    assert make_room(str(tmp_path), "new", ["44", "55"], limit, 9 * ENTRY).removed == 2
    assert left(tmp_path) == {"new/44", "new/55"}, "what the campaign uses stays"


def test_what_the_latest_campaign_used_stays_for_tonight(tmp_path: Path) -> None:
    """It does not know yet which of these entries its pictures have; here are more than fit."""
    of_backbone(tmp_path, "key", ["00", "11", "22", "33"])
    day = 86400
    age_uses(str(tmp_path), {"00": 10 * day, "11": 17 * day, "22": 17 * day + 9, "33": 16 * day})
    assert make_room(str(tmp_path), "key", [], 0.1 * MIB, 4 * ENTRY).removed == 1
    assert left(tmp_path) == {"key/11", "key/22", "key/33"}
    of_backbone(tmp_path, "key", ["44"])
    assert make_room(str(tmp_path), "key", [], 0.1 * MIB, 0).removed == 0, "44 is new tonight"


def test_a_disk_that_is_full_below_the_limit_is_given_room(tmp_path: Path) -> None:
    of_backbone(tmp_path, "old", ["00", "11", "22"])
    of_backbone(tmp_path, "new", ["44"])
    assert make_room(str(tmp_path), "new", [], 100.0, 2 * ENTRY).removed == 0
    done = make_room(str(tmp_path), "new", [], 100.0, 2 * ENTRY, is_full=True)
    assert done.removed == 2
    assert done.size_gib == pytest.approx(MIB, rel=0.01)
    assert left(tmp_path) == {"old/22", "new/44"}
