"""Cuts between keys: few requests, and ranges of like size where names are of like size."""

import itertools
from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from nfbmr.data.key_ranges import keys_to_cut_at


class Store:
    """Sorted keys that count what is asked of them."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = sorted(set(keys))
        self.asked = 0

    def first_key(self, prefix: str, after: str) -> str | None:
        self.asked += 1
        for key in self.keys[bisect_right(self.keys, after) :]:
            if key.startswith(prefix):
                return key
            if key > prefix:
                return None
        return None


def sizes(store: Store, cuts: list[str]) -> list[int]:
    """How many keys each range holds."""
    bounds = [0, *(bisect_right(store.keys, cut) for cut in cuts), len(store.keys)]
    return [end - start for start, end in itertools.pairwise(bounds)]


keys_strategy = st.lists(st.text("ab/é\U0010ffff", max_size=6), max_size=60)


@given(keys=keys_strategy, prefix=st.sampled_from(["", "a", "a/b"]), wanted=st.integers(1, 20))
def test_cuts_are_sorted_and_lie_below_the_prefix(
    keys: list[str], prefix: str, wanted: int
) -> None:
    store = Store(keys)
    cuts = keys_to_cut_at(store.first_key, prefix, wanted)
    assert cuts == sorted(set(cuts))
    assert all(cut.startswith(prefix) for cut in cuts)
    assert store.asked <= 1 + 48 * 8 * max(wanted, 8)


def test_names_with_a_long_common_stem_are_cut_where_they_branch() -> None:
    store = Store([f"line-7/cam2-202611{d:02d}T{s:06d}.png" for d in range(28) for s in range(99)])
    found = sizes(store, keys_to_cut_at(store.first_key, "line-7/", 24))
    assert max(found) <= 2 * 99
    assert 14 <= len(found) <= 49
    assert store.asked < 150


def test_hashes_are_cut_evenly() -> None:
    store = Store([f"{n * 2654435761 % 2**32:08x}" for n in range(10_000)])
    found = sizes(store, keys_to_cut_at(store.first_key, "", 32))
    assert len(found) == 65
    assert max(found) < 4 * 60
    assert store.asked < 600


def test_one_key_and_none_are_not_cut() -> None:
    assert keys_to_cut_at(Store([]).first_key, "", 8) == []
    assert keys_to_cut_at(Store(["p/1.png"]).first_key, "p/", 8) == []
