"""A fit that was cut short after any epoch goes on as if nothing had happened."""

import dataclasses

import pytest
import torch

from nfbmr.fit_settings import FitSettings
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.fit_state import StageState
from tests.train.test_fit import FIT, HEADS, features

SHORT = dataclasses.replace(FIT, flow_epochs=3, mapper_epochs=3)
"""Epoch 3 is the last of the flow, epoch 4 the first of the mapper."""


class CutError(Exception):
    """Stands for whatever ends a process."""


class Memory:
    """Keeps every state as bytes, and cuts the fit short after so many epochs."""

    def __init__(self, cut_after: int | None = None, kept: bytes | None = None) -> None:
        self.cut_after = cut_after
        self.kept = kept
        self.epochs = 0

    def load(self) -> StageState | None:
        return StageState.from_bytes(self.kept) if self.kept else None

    def wants(self) -> bool:
        return True

    def keep(self, state: StageState) -> None:
        self.kept = state.to_bytes()
        self.epochs += 1
        if self.epochs == self.cut_after:
            raise CutError


def run(settings: FitSettings, keeper: Memory) -> tuple[dict[str, torch.Tensor], list[EpochLosses]]:
    losses: list[EpochLosses] = []
    try:
        heads = fit_heads(
            features(30), HEADS, settings, category="bottle", report=losses.append, keeper=keeper
        )
    except CutError:
        return {}, losses
    return heads.state_dict(), losses


@pytest.mark.parametrize(
    ("cut_after", "schedule"),
    [(1, "one-cycle"), (3, "one-cycle"), (4, "constant"), (5, "one-cycle"), (6, "one-cycle")],
)
def test_a_fit_cut_after_any_epoch_ends_with_the_same_losses_and_weights(
    cut_after: int, schedule: str
) -> None:
    settings = dataclasses.replace(SHORT, schedule=schedule)
    undisturbed, losses = run(settings, Memory())
    first = Memory(cut_after)
    _, before = run(settings, first)
    assert len(before) == cut_after
    resumed, after = run(settings, Memory(kept=first.kept))
    assert before + after == losses
    assert undisturbed.keys() == resumed.keys()
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_state_survives_its_file_and_a_damaged_file_is_no_state() -> None:
    keeper = Memory(cut_after=2)
    run(SHORT, keeper)
    assert keeper.kept is not None
    state = StageState.from_bytes(keeper.kept)
    assert state is not None
    assert (state.stage, state.epoch, state.step) == ("flow", 2, 8)
    assert state.to_bytes() == keeper.kept
    for damaged in (b"", b"x" * 100, keeper.kept[:50], keeper.kept[:-1], b"\x80\x04N."):
        assert StageState.from_bytes(damaged) is None
