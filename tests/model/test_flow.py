import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nfbmr.errors import ConfigError
from nfbmr.model.flow import Flow, FlowSettings, flow_loss


def trained_looking_flow(
    channels: int, height: int, width: int, seed: int, spread: float = 0.25, **shape: int
) -> Flow:
    """A flow whose subnets are not zero, as they are after training."""
    torch.manual_seed(seed)
    flow = Flow(channels, height, width, FlowSettings(hidden_channels=16, **shape))
    for parameter in (p for p in flow.parameters() if p.is_floating_point()):
        fan_in = parameter[0].numel()
        torch.nn.init.normal_(parameter, std=spread / fan_in**0.5)
    return flow


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(2, 24),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    kernel_size=st.sampled_from([1, 3]),
    coupling_blocks=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    precision=st.sampled_from([(torch.float32, 0.25, 1e-4), (torch.float64, 0.5, 1e-9)]),
)
@example(  # Float32 loses 3e-4 of this one.
    channels=4,
    height=1,
    width=2,
    kernel_size=1,
    coupling_blocks=5,
    seed=5,
    precision=(torch.float64, 0.5, 1e-9),
)
def test_inverse_undoes_forward(
    channels: int,
    height: int,
    width: int,
    kernel_size: int,
    coupling_blocks: int,
    seed: int,
    precision: tuple[torch.dtype, float, float],
) -> None:
    """In double precision for larger weights, too, whose maps amplify what float32 rounds."""
    dtype, spread, tolerance = precision
    flow = trained_looking_flow(
        *(channels, height, width, seed, spread),
        kernel_size=kernel_size,
        coupling_blocks=coupling_blocks,
    ).to(dtype)
    y_BCHW = torch.randn(3, channels, height, width, dtype=dtype)
    with torch.no_grad():
        z_BCHW, log_det_B = flow(y_BCHW)
        assert z_BCHW.shape == y_BCHW.shape
        assert (z_BCHW - y_BCHW).abs().max() > 1e-3
        assert log_det_B.abs().max() > 1e-6, "more than a permutation of the channels"
        assert (flow.inverse(z_BCHW) - y_BCHW).abs().max() <= tolerance


def test_paper_sized_flow_inverts_in_float32() -> None:
    torch.manual_seed(0)
    flow = Flow(304, 24, 24, FlowSettings())
    for parameter in (p for p in flow.parameters() if p.is_floating_point()):
        torch.nn.init.normal_(parameter, std=0.02)
    y_BCHW = torch.randn(1, 304, 24, 24)
    with torch.no_grad():
        z_BCHW, _ = flow(y_BCHW)
        assert (flow.inverse(z_BCHW) - y_BCHW).abs().max() <= 1e-4
        assert (z_BCHW - y_BCHW).abs().max() > 0.1


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("channels", [4, 5])
def test_log_determinant_is_that_of_the_jacobian(kernel_size: int, channels: int) -> None:
    flow = trained_looking_flow(channels, 2, 3, seed=1, kernel_size=kernel_size).double()
    y_BCHW = torch.randn(2, channels, 2, 3, dtype=torch.float64)
    _, log_det_B = flow(y_BCHW)
    for picture in range(2):
        y_1CHW = y_BCHW[picture : picture + 1]
        jacobian = torch.autograd.functional.jacobian(lambda y: flow(y)[0], y_1CHW)
        size = y_1CHW.numel()
        _, expected = torch.linalg.slogdet(jacobian.reshape(size, size))
        assert float(log_det_B[picture].detach()) == pytest.approx(
            float(expected), rel=1e-6, abs=1e-6
        )


def test_loss_is_equation_8_by_hand() -> None:
    z_BCHW = torch.tensor([[[[1.0, 2.0]], [[0.0, -1.0]]], [[[0.0, 0.0]], [[3.0, 0.0]]]])
    log_det_B = torch.tensor([0.5, -1.0])
    # Picture 1: (1 + 4 + 0 + 1)/2 - 0.5 = 2.5. Picture 2: 9/2 + 1 = 5.5. Mean 4, over C·H·W = 4.
    assert float(flow_loss(z_BCHW, log_det_B)) == pytest.approx(1.0)


def test_untrained_flow_only_permutes_channels() -> None:
    flow = Flow(6, 2, 2, FlowSettings(hidden_channels=8))
    y_BCHW = torch.randn(1, 6, 2, 2)
    z_BCHW, log_det_B = flow(y_BCHW)
    assert torch.equal(z_BCHW.sort(dim=1).values, y_BCHW.sort(dim=1).values)
    assert float(log_det_B.detach()) == 0.0


def test_permutations_are_fixed_by_the_seed() -> None:
    y_BCHW = torch.randn(1, 16, 1, 1)

    def output(seed: int) -> torch.Tensor:
        flow = Flow(16, 1, 1, FlowSettings(hidden_channels=4, permutation_seed=seed))
        return flow(y_BCHW)[0]

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"kernel_size": 2}, "odd"),
        ({"coupling_blocks": 0}, "at least 1"),
        ({"clamp": 0.0}, "above 0"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        FlowSettings(**settings_)


def test_one_channel_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match=r"another backbone\.layer"):
        Flow(1, 2, 2, FlowSettings(hidden_channels=4))
