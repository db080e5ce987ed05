"""The fit loop: it learns, it repeats itself, and it stops at the first number that is none."""

import dataclasses

import pytest
import torch

from nfbmr.errors import FitError
from nfbmr.fit_settings import FitSettings
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.stage import Stage, checked_means, learning_rate_schedule

SHAPE = (8, 4, 4)
HEADS = HeadsSettings(
    FlowSettings(hidden_channels=32), MapperSettings(latent_channels=16, block_channels=8)
)
FIT = FitSettings(flow_epochs=6, mapper_epochs=6, batch_size=8, min_steps=1)


def features(count: int = 64, seed: int = 0) -> torch.Tensor:
    """Normal features: correlated channels, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 3, *SHAPE[1:], generator=generator)
    mixing = torch.randn(SHAPE[0], 3, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, *SHAPE, generator=generator)
    return torch.einsum("ck,bkhw->bchw", mixing, hidden) + 0.1 * noise


def fit(
    y_NCHW: torch.Tensor, heads: HeadsSettings = HEADS, **changes: object
) -> tuple[Heads, list[EpochLosses]]:
    losses: list[EpochLosses] = []
    settings = dataclasses.replace(FIT, **changes)  # type: ignore[arg-type]
    fitted = fit_heads(y_NCHW, heads, settings, category="bottle", report=losses.append)
    return fitted, losses


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_flow_first_then_mapper_and_both_learn(precision: str) -> None:
    _, losses = fit(features(), precision=precision)
    assert [(e.stage, e.epoch) for e in losses] == [
        *(("flow", i) for i in range(1, 7)),
        *(("mapper", i) for i in range(1, 7)),
    ]
    flow = [e.losses["flow_loss"] for e in losses if e.stage == "flow"]
    source = [e.losses["source_loss"] for e in losses if e.stage == "mapper"]
    target = [e.losses["target_loss"] for e in losses if e.stage == "mapper"]
    assert flow[-1] < flow[0] - 0.1
    assert source[-1] < 0.7 * source[0]
    assert target[-1] < 0.9 * target[0]


def test_abnormal_features_score_higher() -> None:
    heads, _ = fit(features())
    normal_NCHW = features(40, seed=1)
    abnormal_NCHW = normal_NCHW[
        :, torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1))
    ]
    with torch.inference_mode():
        normal_N = heads(normal_NCHW).mean((1, 2))
        abnormal_N = heads(abnormal_NCHW).mean((1, 2))
    assert (abnormal_N > normal_N.max()).float().mean() > 0.9


def test_the_same_seed_gives_the_same_detector_and_another_seed_another() -> None:
    one, first = fit(features())
    two, second = fit(features())
    assert [e.losses for e in first] == [e.losses for e in second]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    _, other = fit(features(), seed=1)
    assert [e.losses for e in other] != [e.losses for e in first]


def test_the_flow_does_not_change_while_the_mapper_is_fitted() -> None:
    flow_only = dataclasses.replace(HEADS, mapper=MapperSettings(kind="none"))
    alone, _ = fit(features(), flow_only)
    both, _ = fit(features())
    assert alone.mapper is None
    for name, tensor in alone.flow.state_dict().items():
        assert torch.equal(tensor, both.flow.state_dict()[name]), name


def test_a_fitted_flow_inverts_in_float32() -> None:
    heads, _ = fit(features())
    with torch.inference_mode():
        y_NCHW = heads.standardizer(features(8, seed=1))
        z_NCHW, log_det_N = heads.flow(y_NCHW)
        assert log_det_N.abs().max() > 1
        assert (heads.flow.inverse(z_NCHW) - y_NCHW).abs().max() <= 1e-4


def test_the_constant_schedule_is_the_papers() -> None:
    """The rate stays, where the one-cycle schedule's changes with every step."""
    module = torch.nn.Linear(2, 2)
    stage = Stage("flow", module, 2e-4, ("loss",), lambda *_: (), "bottle")
    for schedule, is_constant in (("constant", True), ("one-cycle", False)):
        settings = FitSettings(schedule=schedule)
        optimizer = torch.optim.Adam(module.parameters(), lr=stage.learning_rate)
        scheduler = learning_rate_schedule(optimizer, stage, settings, 10)
        rates = []
        for _ in range(10):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        assert (set(rates) == {2e-4}) is is_constant


def test_a_finite_loss_that_blows_up_is_divergence() -> None:
    stage = Stage("flow", torch.nn.Linear(2, 2), 1.0, ("loss",), lambda *_: (), "bottle")
    assert checked_means(torch.tensor([[-3.0], [-5.0]]), stage) == {"loss": -4.0}
    assert checked_means(torch.tensor([[30.0], [40.0]]), stage) == {"loss": 35.0}
    with pytest.raises(
        FitError, match=r"'bottle' diverged: .*after -4 in the first epoch at step 6"
    ):
        checked_means(torch.tensor([[1e9], [1e20]]), stage)


def test_a_dead_channel_does_not_spoil_the_fit() -> None:
    y_NCHW = features()
    y_NCHW[:, 3] = 5.0
    heads, losses = fit(y_NCHW)
    assert all(v == v for e in losses for v in e.losses.values())
    with torch.inference_mode():
        assert torch.isfinite(heads(features(4, seed=2))).all()


def test_a_last_step_that_breaks_the_mapper_is_divergence() -> None:
    """The losses of an epoch are taken before its steps."""
    with pytest.raises(FitError, match=r"'bottle' diverged: .* is not finite at step 1 of stage"):
        fit(
            features(8),
            mapper_epochs=1,
            mapper_learning_rate=1e38,
            gradient_clip_norm=0.0,
            schedule="constant",
            precision="float32",
        )


def test_divergence_names_category_stage_and_step() -> None:
    with pytest.raises(
        FitError, match=r"'bottle' diverged: .*(nan|inf).* at step \d+ of stage 'flow'"
    ):
        fit(features() * 1e30, dataclasses.replace(HEADS, standardize=False), precision="float32")


def test_features_that_are_not_finite_are_refused() -> None:
    y_NCHW = features()
    y_NCHW[0, 0, 0, 0] = float("nan")
    with pytest.raises(FitError, match="not finite"):
        fit(y_NCHW)


def test_nothing_to_fit_on_is_an_error() -> None:
    with pytest.raises(FitError, match="'bottle' has no training features"):
        fit(features(0))


def test_a_mapper_on_a_flow_that_was_fitted_before_is_the_one_of_a_whole_fit() -> None:
    flow_only = dataclasses.replace(HEADS, mapper=MapperSettings(kind="none"))
    alone, _ = fit(features(), flow_only)
    whole, _ = fit(features())
    losses: list[EpochLosses] = []
    on_top = fit_heads(
        features(), HEADS, FIT, category="bottle", report=losses.append, fitted_flow=alone
    )
    assert {e.stage for e in losses} == {"mapper"}
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, on_top.state_dict()[name]), name
