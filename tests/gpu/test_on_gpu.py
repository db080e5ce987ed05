"""What only a GPU can show: that it computes what the CPU does. Skipped where there is none.

Shapes: B pictures, C channels, H, W height and width.
"""

import dataclasses

import numpy as np
import pytest
import torch

from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.flow import Flow, FlowSettings
from nfbmr.model.precision import BFLOAT16, FLOAT32, MIXED, exact_convolutions
from nfbmr.model.runner import BackboneRunner
from nfbmr.train.device_memory import free_memory_bytes
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.held_out_maps import anomaly_maps
from nfbmr.train.stage import Keeper
from tests.train.test_fit import FIT, HEADS, features
from tests.train.test_fit_resume import CutError, Memory

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def relative(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> float:
    difference = (a_BCHW.cpu() - b_BCHW.cpu()).norm() / b_BCHW.cpu().norm()
    return float(difference)


def losses_of(
    device: torch.device, keeper: Keeper | None = None, **changes: object
) -> list[EpochLosses]:
    losses: list[EpochLosses] = []
    settings = dataclasses.replace(FIT, **changes)  # type: ignore[arg-type]
    fit_heads(
        features(), HEADS, settings, category="bottle", device=device, report=losses.append,
        keeper=keeper,
    )  # fmt: skip
    return losses


def values(losses: list[EpochLosses]) -> list[float]:
    return [value for epoch in losses for value in epoch.losses.values()]


def test_the_flow_inverts() -> None:
    torch.manual_seed(0)
    flow = Flow(304, 24, 24, FlowSettings()).to(GPU).eval()
    for parameter in flow.parameters():
        if parameter.is_floating_point():  # A permutation is a parameter, too.
            torch.nn.init.normal_(parameter, std=0.03)
    y_BCHW = torch.randn(2, 304, 24, 24, device=GPU)
    with torch.no_grad(), exact_convolutions(GPU):
        z_BCHW, _ = flow(y_BCHW)
        error = float((flow.inverse(z_BCHW) - y_BCHW).abs().max())
    assert float((z_BCHW - y_BCHW).abs().max()) > 0.1
    assert error <= 1e-4


def test_float32_is_float32_and_the_setting_is_put_back() -> None:
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    y_BCHW = torch.randn(4, 512, 32, 32, device=GPU)
    weight = torch.randn(512, 512, 1, 1, device=GPU) / 22
    exact_BCHW = torch.nn.functional.conv2d(y_BCHW.double(), weight.double())
    with exact_convolutions(GPU):
        ours_BCHW = torch.nn.functional.conv2d(y_BCHW, weight)
    assert relative(ours_BCHW, exact_BCHW) < 1e-6
    assert convolutions.fp32_precision == before


@pytest.mark.parametrize(
    ("forward", "limit"), [(FLOAT32, 1e-5), (MIXED, 0.05), (BFLOAT16, 0.05), ("compiled", 1e-5)]
)
def test_features_are_those_of_the_cpu(forward: str, limit: float) -> None:
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    settings = BackboneSettings(image_size_px=64)
    expected_BCHW = BackboneRunner(settings, device=CPU, forward=FLOAT32).features_of(pixels_BHWC)
    runner = BackboneRunner(settings, device=GPU, batch_size=2, forward=forward)
    y_BCHW = runner.features_of(pixels_BHWC)
    assert y_BCHW.device.type == "cuda"
    assert relative(y_BCHW, expected_BCHW) < limit


def test_a_fit_has_the_losses_of_the_cpu() -> None:
    gpu, cpu = losses_of(GPU, precision=FLOAT32), losses_of(CPU, precision=FLOAT32)
    assert values(gpu) == pytest.approx(values(cpu), rel=1e-3, abs=1e-3)
    rounded = losses_of(GPU, precision=BFLOAT16)
    assert values(rounded) == pytest.approx(values(cpu), rel=0.1, abs=0.1)


def test_streamed_features_give_the_losses_of_resident_ones() -> None:
    streamed = losses_of(GPU, precision=FLOAT32, features="streamed")
    resident = losses_of(GPU, precision=FLOAT32, features="resident")
    assert values(streamed) == pytest.approx(values(resident), rel=1e-4, abs=1e-4)


def test_a_compiled_step_has_the_losses_of_a_plain_one() -> None:
    compiled = losses_of(GPU, precision=FLOAT32, compile=True)
    assert values(compiled) == pytest.approx(
        values(losses_of(GPU, precision=FLOAT32)), rel=1e-3, abs=1e-3
    )


@pytest.mark.parametrize("cut_after", [2, 8])
def test_a_fit_that_was_cut_short_goes_on(cut_after: int) -> None:
    undisturbed = losses_of(GPU, Memory())
    cut = Memory(cut_after)
    with pytest.raises(CutError):
        losses_of(GPU, cut)
    after = losses_of(GPU, Memory(kept=cut.kept))
    assert len(after) == len(undisturbed) - cut_after
    assert values(after) == pytest.approx(values(undisturbed[cut_after:]), rel=1e-2, abs=1e-2)


def test_heads_come_back_to_the_cpu_and_score_the_same_there() -> None:
    settings = dataclasses.replace(FIT, flow_epochs=2, mapper_epochs=2)
    heads = fit_heads(features(), HEADS, settings, category="bottle", device=GPU)
    there, here = (anomaly_maps(heads, features(8, seed=1), device) for device in (GPU, CPU))
    assert next(heads.parameters()).device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def test_free_memory_is_the_cards() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    assert 0 < free_memory_bytes(GPU) <= total
