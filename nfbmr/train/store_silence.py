"""What a pass over training pictures makes of those that a store did not give.

A detector must not be fitted on what happened to be readable while a store restarted. Pictures
that it did not give are asked for again later; a store that gives nothing at all ends the campaign,
which the same command resumes. Whether it is the store or the picture is told by asking for another
one that could be read before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nfbmr.data.content import read_bytes
from nfbmr.errors import DataError, StoreError
from nfbmr.store_faults import PATIENCE_S, StoreFault, fault_of, patience
from nfbmr.train.feature_index import FeatureIndex, Picture

SILENT_BEFORE_STOP = 256
"""So many pictures in a row that a store did not give say that it gives nothing."""

PAUSES_S = (10.0, 60.0)
"""Before pictures that a store did not give are asked for once more, and for the last time."""


class PatientReader:
    """Reads the pictures of one task; the store's failures are its findings.

    Once a store did not answer for as long as patience lasts, the task's other pictures are asked
    for once: a task must not take an hour to find out that a store is away.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s

    def read(self, uri: str) -> bytes | DataError:
        """A picture's bytes, or why it has none; safe to call from many threads.

        Raises:
            StoreError: the store refuses whatever it is asked for.
        """
        try:
            with patience(self._patience_s):
                return read_bytes(uri)
        except DataError as error:
            if is_silence(error):
                self._patience_s = 0.0
            return error


def is_silence(error: DataError) -> bool:
    """Whether a picture was not given by a store that may give it later."""
    return fault_of(error) is StoreFault.BUSY


class StoreSilence:
    """Looks at the pictures of a pass as they come back."""

    def __init__(self, silent_before_stop: int = SILENT_BEFORE_STOP) -> None:
        self._silent_before_stop = silent_before_stop
        self._silent = 0
        self._witness: str | None = None

    def look(self, uri: str, error: str | None, busy: bool) -> None:
        """Take what became of a picture.

        Raises:
            StoreError: the store gives nothing at all.
        """
        if error is None:
            self._witness = uri
        self._silent = self._silent + 1 if busy else 0
        if self._silent >= self._silent_before_stop:
            check_store(self._witness, error or "")
            self._silent = 0


def check_store(witness: str | None, reason: str) -> None:
    """Ask for a picture that could be read before.

    Args:
        witness: its URI; None where no picture could be read yet.
        reason: why another one could not.

    Raises:
        StoreError: it is not given, either.
    """
    if witness is not None:
        answer = PatientReader().read(witness)
        if not isinstance(answer, DataError) or not is_silence(answer):
            return
    raise StoreError(
        f"The store gives no picture any more: {reason} Look at its state, then run the same "
        "command again. What was finished stays."
    )


def picture_of(row: Mapping[str, Any]) -> Picture:
    """Which picture a row of a pass is of."""
    return Picture(row["uri"], row["variant"])


def indexed(
    rows: Iterable[Mapping[str, Any]], index: FeatureIndex, progress: Callable[[int], None]
) -> FeatureIndex:
    """Fill an index with what a pass says of each picture.

    Args:
        rows: a row per picture: ``uri``, ``variant``, ``entry`` (its name, where it could be
            fetched), ``error``, ``busy`` (the store may give it later) and ``computed``.
        index: without pictures.
        progress: called with how many are done.

    Raises:
        StoreError: the store gives nothing at all.
    """
    computed = 0
    busy: set[Picture] = set()
    silence = StoreSilence()
    for row in rows:
        picture = picture_of(row)
        silence.look(row["uri"], row["error"], row["busy"])
        if row["entry"] is not None:
            index.names[picture] = row["entry"]
        if row["error"] is None:
            index.entries[picture] = row["entry"]
        else:
            index.errors[picture] = row["error"]
        if row["busy"]:
            busy.add(picture)
        computed += bool(row["computed"])
        progress(len(index.entries) + len(index.errors))
    return replace(index, computed=computed, busy=frozenset(busy))


def settled(
    pictures: Sequence[Picture],
    compute: Callable[[Sequence[Picture]], FeatureIndex],
    say: Callable[[str], None],
    pauses_s: Sequence[float] = PAUSES_S,
) -> FeatureIndex:
    """The features of pictures, of which those are errors that a store that works does not give.

    Args:
        pictures: what is wanted.
        compute: one pass over some of them.
        say: called with a sentence before pictures are asked for again.
        pauses_s: before each further pass.

    Raises:
        StoreError: the store gives nothing any more.
    """
    index = compute(pictures)
    for pause_s in pauses_s:
        if not index.busy:
            return index
        say(
            f"The store did not give {len(index.busy)} pictures: they are asked for again in "
            f"{pause_s:g} s"
        )
        time.sleep(pause_s)
        index = joined(replace(index, busy=frozenset()), compute(sorted(index.busy, key=_place)))
    if index.busy:
        witness = next(iter(index.entries), None)
        first = min(index.busy, key=_place)
        check_store(witness.uri if witness else None, index.errors[first])
    return index


def joined(first: FeatureIndex, second: FeatureIndex) -> FeatureIndex:
    """Two indices as one; what the second says of a picture counts."""
    errors = {p: e for p, e in first.errors.items() if p not in second.entries}
    return replace(
        first,
        entries={**first.entries, **second.entries},
        errors={**errors, **second.errors},
        names={**first.names, **second.names},
        computed=first.computed + second.computed,
        busy=first.busy | second.busy,
    )


def _place(picture: Picture) -> tuple[str, int]:
    return picture.uri, picture.variant
