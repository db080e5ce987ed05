"""A stage ends when watched pictures stop improving, with the best epoch's weights, every time."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn

from nfbmr.fit_settings import FitSettings
from nfbmr.model.heads import Heads
from nfbmr.train.compiling import compiled, compiler_available
from nfbmr.train.early_stop import EarlyStop
from nfbmr.train.fit import EpochLosses, fit_heads
from tests.train.test_fit import HEADS, features
from tests.train.test_fit_resume import Memory, run

FIT = FitSettings(
    flow_epochs=60,
    mapper_epochs=12,
    batch_size=8,
    min_steps=1,
    schedule="constant",
    flow_learning_rate=5e-3,
    precision="float32",
    early_stop_patience=3,
    early_stop_share=0.3,
)


def fit(settings: FitSettings) -> tuple[Heads, list[EpochLosses]]:
    losses: list[EpochLosses] = []
    heads = fit_heads(features(24), HEADS, settings, category="bottle", report=losses.append)
    return heads, losses


def test_patience_counts_epochs_since_the_best_and_its_weights_come_back() -> None:
    module = nn.Linear(1, 1)
    stop = EarlyStop(patience=2)
    for value, loss in enumerate([3.0, 1.0, 2.0, 1.5]):
        assert not stop.is_over
        nn.init.constant_(module.weight, float(value))
        stop.note(loss, module)
    assert stop.is_over
    stop.restore_best(module)
    assert module.weight.item() == 1.0


def test_an_overfitted_stage_ends_early_at_its_best_epoch_and_the_same_way_again() -> None:
    one, losses = fit(FIT)
    watched = [e.losses["flow_validation_loss"] for e in losses if e.stage == "flow"]
    assert len(watched) < FIT.flow_epochs
    assert len(watched) - 1 - watched.index(min(watched)) == FIT.early_stop_patience
    two, again = fit(FIT)
    assert [e.losses for e in losses] == [e.losses for e in again]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    best = watched.index(min(watched)) + 1
    until_best, _ = fit(dataclasses.replace(FIT, flow_epochs=best))
    for a, b in zip(one.flow.parameters(), until_best.flow.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_fit_that_was_cut_short_still_knows_its_best_epoch() -> None:
    settings = dataclasses.replace(FIT, flow_epochs=12, mapper_epochs=2)
    whole, losses = run(settings, Memory())
    for cut_after in (3, sum(e.stage == "flow" for e in losses)):
        cut = Memory(cut_after)
        _, before = run(settings, cut)
        resumed, after = run(settings, Memory(kept=cut.kept))
        assert [e.losses for e in losses] == [e.losses for e in before + after]
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_without_a_compiler_the_step_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert shutil.which("g++") is None
    assert not compiler_available(torch.device("cpu"))
    assert compiled(abs, torch.device("cpu")) is abs


@pytest.mark.slow
def test_compiled_steps_give_the_same_losses() -> None:
    if not compiler_available(torch.device("cpu")):
        pytest.skip("this machine has no C++ compiler")
    short = dataclasses.replace(FIT, flow_epochs=2, mapper_epochs=2, early_stop_patience=0)
    _, eager = fit(short)
    _, fused = fit(dataclasses.replace(short, compile=True))
    for a, b in zip(eager, fused, strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-3, abs=1e-4)
