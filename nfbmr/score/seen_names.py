"""Which names came before, among more than memory could hold as text."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGEST_BYTES = 16
"""Among a billion names two have the same 128 bits by chance once in 10^20 runs."""

LARGEST_RUN = 2**26
"""Digests in one sorted array; merging two arrays needs their size once more, here 1 GiB."""


class SeenNames:
    """Remembers names by 16 bytes each.

    Digests lie in sorted runs. A new run is merged with the last one as long as that is not
    larger, so that there are few runs and each digest is moved few times.

    Args:
        largest_run: digests that a run may have and still be merged.
    """

    def __init__(self, largest_run: int = LARGEST_RUN) -> None:
        self._largest_run = largest_run
        self._runs: list[NDArray[np.bytes_]] = []

    def are_new(self, names: pa.ChunkedArray) -> pa.Array:
        """Which of the names are in no earlier call; from now on all of them are seen.

        Args:
            names: text without nulls; no name is in it twice.

        Returns:
            A boolean per name.
        """
        digests_N = _digests(names)
        order_N = np.argsort(digests_N, kind="stable")
        sorted_N = digests_N[order_N]
        is_new_N = np.ones(len(sorted_N), bool)
        for run in self._runs:
            place_N = np.searchsorted(run, sorted_N)
            place_N[place_N == len(run)] = 0
            is_new_N &= run[place_N] != sorted_N
        self._add(sorted_N[is_new_N])
        result_N = np.empty(len(sorted_N), bool)
        result_N[order_N] = is_new_N
        return pa.array(result_N)

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def _add(self, run: NDArray[np.bytes_]) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) <= len(run) <= self._largest_run:
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")
        self._runs.append(run)


def _digests(names: pa.ChunkedArray) -> NDArray[np.bytes_]:
    joined = b"".join(
        hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
        for chunk in names.chunks
        for name in chunk.to_pylist()
    )
    # A fixed-width text: compared as bytes, sorted by them.
    return np.frombuffer(joined, dtype=f"S{_DIGEST_BYTES}")
