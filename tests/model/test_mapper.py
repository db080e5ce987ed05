import pytest
import torch
from torch import nn

from nfbmr.errors import ConfigError
from nfbmr.model.mapper import Mapper, MapperSettings, ResidualBlock, mapper_loss


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def bmr(n: int, channels: int = 6, latent: int = 8, inner: int = 4) -> Mapper:
    return Mapper(channels, MapperSettings("bmr", n, latent, inner))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_source_and_target_mapper_share_exactly_one_residual_block(n: int) -> None:
    channels, latent, inner = 6, 8, 4
    mapper = bmr(n, channels, latent, inner)
    block = latent * inner + inner + 9 * inner * inner + inner + inner * latent + latent
    ends = channels * latent + latent + latent * channels + channels
    assert parameters(ResidualBlock(latent, inner)) == block
    assert parameters(mapper) == 2 * (2 * n * block + ends) + block


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_shared_block_is_used_by_both_directions_and_no_other_is(n: int) -> None:
    mapper = bmr(n)
    y_BCHW, z_BCHW = torch.randn(2, 1, 6, 3, 3)
    y_hat_BCHW, z_hat_BCHW = mapper(y_BCHW, z_BCHW)
    used = []
    for output in (y_hat_BCHW, z_hat_BCHW):
        gradients = torch.autograd.grad(
            output.sum(), list(mapper.parameters()), allow_unused=True, retain_graph=True
        )
        names = [name for name, _ in mapper.named_parameters()]
        used.append({n for n, g in zip(names, gradients, strict=True) if g is not None})
    shared = {name for name, _ in mapper.named_parameters() if name.startswith("shared.")}
    assert used[0] & used[1] == shared
    assert used[0] | used[1] == {name for name, _ in mapper.named_parameters()}


def test_b_pfm_is_five_1x1_convolutions_a_direction_with_the_middle_one_shared() -> None:
    mapper = Mapper(6, MapperSettings("b-pfm", latent_channels=8))
    convolutions = [m for m in mapper.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2 * 4 + 1
    assert {m.kernel_size for m in convolutions} == {(1, 1)}


def test_residual_block_is_1x1_3x3_1x1_with_a_relu_after_each_plus_its_input() -> None:
    block = ResidualBlock(5, 3)
    assert [type(m).__name__ for m in block.body] == ["Conv2d", "ReLU"] * 3
    assert [m.kernel_size[0] for m in block.body if isinstance(m, nn.Conv2d)] == [1, 3, 1]
    h_BCHW = torch.randn(2, 5, 4, 4)
    # The last ReLU makes what is added never negative.
    assert bool((block(h_BCHW) >= h_BCHW).all())


@pytest.mark.parametrize("kind", ["bmr", "b-pfm"])
def test_shapes_are_kept(kind: str) -> None:
    mapper = Mapper(7, MapperSettings(kind, 1, 8, 4))
    y_BCHW = torch.randn(2, 7, 5, 3)
    y_hat_BCHW, z_hat_BCHW = mapper(y_BCHW, y_BCHW)
    assert y_hat_BCHW.shape == z_hat_BCHW.shape == y_BCHW.shape


def test_losses_are_equations_11_and_12_by_hand() -> None:
    y_BCHW = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    source, target = mapper_loss(y_BCHW, y_BCHW - 2, y_BCHW, y_BCHW + torch.tensor([1.0, 3.0]))
    assert float(source) == pytest.approx(4.0)
    assert float(target) == pytest.approx((1 + 9) / 2)


def test_unknown_kind_and_missing_mapper_are_refused() -> None:
    with pytest.raises(ConfigError, match="bmr, b-pfm, none"):
        MapperSettings("bpfm")
    with pytest.raises(ConfigError, match="no mapper"):
        Mapper(4, MapperSettings("none"))
