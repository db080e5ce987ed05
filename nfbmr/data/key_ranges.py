"""Where to cut an object store's sorted keys, so that their ranges are listed at the same time.

A page of a listing says where the next one begins, so pages of one range can only be read one after
the other: a hundred million keys in one folder are a hundred thousand requests. The keys at which
to cut are found by looking how names branch, a request for each branch; whatever they are, every
key is in exactly one range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

_LAST = "\U0010ffff"
_MAX_DEPTH = 48
_MAX_BRANCHES = 64
_LOOKERS = 16

FirstKey = Callable[[str, str], str | None]
"""The first key that begins with the first argument and comes after the second, or None."""


def keys_to_cut_at(first_key: FirstKey, prefix: str, wanted: int) -> list[str]:
    """Keys, there or not, that cut what begins with a prefix into about so many ranges.

    Args:
        first_key: asks the store.
        prefix: of all keys.
        wanted: how many ranges there should be at least, fewer where names do not branch so often;
            at most twice as many.

    Returns:
        Sorted; each is the last key of a range or comes after it.
    """
    first = first_key(prefix, "")
    front = [] if first is None else [(prefix, first)]
    with ThreadPoolExecutor(_LOOKERS) as pool:
        for _ in range(_MAX_DEPTH):
            if not front or len(front) >= wanted:
                break
            front = [
                branch for own in pool.map(partial(_branches, first_key), front) for branch in own
            ]
    cuts = sorted(stem for stem, _ in front)[1:]
    return cuts[:: math.ceil(len(cuts) / (2 * wanted)) or 1]


def _branches(first_key: FirstKey, stem_and_first: tuple[str, str]) -> list[tuple[str, str]]:
    """How keys go on after a stem: the stems that are longer by a letter, with their first keys."""
    stem, key = stem_and_first[0], _longer_key(first_key, *stem_and_first)
    found: list[tuple[str, str]] = []
    while key is not None and len(found) < _MAX_BRANCHES:
        longer = key[: len(stem) + 1]
        found.append((longer, key))
        following = first_key(stem, longer + _LAST)
        key = None if following is None or following.startswith(longer) else following
    return found


def _longer_key(first_key: FirstKey, stem: str, key: str) -> str | None:
    """The first key that is longer than the stem."""
    return first_key(stem, stem) if key == stem else key
