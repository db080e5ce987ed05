"""Where the state of an unfinished fit is kept between its attempts."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

from nfbmr import plain_values, storage
from nfbmr.errors import STORE_FAULTS, StoreError
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_state import StageState

_LARGEST_SHARE = 0.05
"""Of a fit's time that goes into keeping its state, where that takes long."""


class FitCheckpoint:
    """One file that always holds the last state of a fit; it is replaced in one atomic write.

    Ray Train's own checkpoints are folders with a list of them that is overwritten in place: a
    driver killed at the wrong moment leaves a list that cannot be read. This file is whole at any
    moment, needs no driver to be written, and is found by its name alone.

    Args:
        uri: of the file; None keeps nothing.
        losses: of all epochs so far; kept with the state and, on loading, restored.
        interval_s: at least so long between two states; 0 keeps every epoch's.
    """

    def __init__(self, uri: str | None, losses: list[EpochLosses], interval_s: float) -> None:
        self.uri = uri
        self.losses = losses
        self.interval_s = interval_s
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._next = self._started + interval_s

    def load(self) -> StageState | None:
        """The last state, or None where there is none or it is damaged."""
        data = None if self.uri is None else storage.read(self.uri)
        state = None if data is None else StageState.from_bytes(data)
        if state is None:
            if data is not None:
                self._say_damaged()
            return None
        try:
            losses = [EpochLosses.from_dict(row) for row in state.notes["losses"]]
            self.seconds_before = plain_values.number(state.notes["seconds"])
        except (ValueError, KeyError, TypeError):
            self._say_damaged()
            return None
        self.losses[:] = losses
        return state

    def _say_damaged(self) -> None:
        print(f"The state {self.uri} is damaged: the fit begins anew.", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """Since the start, with those of the earlier attempts up to their last state."""
        return self.seconds_before + time.monotonic() - self._started

    def wants(self) -> bool:
        """Whether it is time to keep a state."""
        return self.uri is not None and time.monotonic() >= self._next

    def keep(self, state: StageState) -> None:
        """Replace the file; where the store does not take it, the fit goes on with an older one."""
        assert self.uri is not None
        state.notes["losses"] = [asdict(epoch) for epoch in self.losses]
        state.notes["seconds"] = self.seconds
        before = time.monotonic()
        try:
            storage.write_atomically(self.uri, state.to_bytes())
        except (*STORE_FAULTS, StoreError) as error:
            print(f"The state of the fit could not be kept in {self.uri}: {error}", file=sys.stderr)
        now = time.monotonic()
        self._next = now + max(self.interval_s, (now - before) / _LARGEST_SHARE)
        if self.interval_s == 0:
            self._next = now
