"""Fast forward passes compute what the plain network computes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nfbmr.errors import ConfigError
from nfbmr.model import compilation
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.compilation import compiler
from nfbmr.model.network import first_stage
from nfbmr.model.precision import (
    AUTOMATIC,
    BFLOAT16,
    COMPILED,
    FLOAT32,
    MIXED,
    REFERENCE,
    forward_precision,
    used_precision,
)
from nfbmr.model.runner import BackboneRunner

CPU = torch.device("cpu")
SMALL = BackboneSettings(image_size_px=64)


@pytest.fixture(scope="module", name="pixels_BHWC")
def random_pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def features(
    pixels_BHWC: NDArray[np.uint8], forward: str, batch_size: int = 5
) -> tuple[torch.Tensor, str]:
    runner = BackboneRunner(SMALL, batch_size=batch_size, device=CPU, forward=forward)
    return runner.features_of(pixels_BHWC), runner.numerics


def error(y_BCHW: torch.Tensor, expected_BCHW: torch.Tensor) -> float:
    """Root mean square of the difference, relative."""
    difference = (y_BCHW - expected_BCHW).square().mean().sqrt()
    return float(difference / expected_BCHW.square().mean().sqrt())


def test_folding_and_channels_last_change_rounding_only(pixels_BHWC: NDArray[np.uint8]) -> None:
    expected_BCHW, plain = features(pixels_BHWC, REFERENCE)
    y_BCHW, fast = features(pixels_BHWC, AUTOMATIC)
    assert 0 < error(y_BCHW, expected_BCHW) < 1e-5
    assert plain == "float32"
    assert fast == "float32, batch norms folded, channels last"


def test_bfloat16_is_used_where_the_processor_has_it(pixels_BHWC: NDArray[np.uint8]) -> None:
    expected_BCHW, _ = features(pixels_BHWC, FLOAT32)
    y_BCHW, numerics = features(pixels_BHWC, BFLOAT16)
    assert y_BCHW.dtype == torch.float32
    assert numerics.startswith(used_precision(BFLOAT16, CPU))
    if used_precision(BFLOAT16, CPU) == BFLOAT16:
        assert 1e-4 < error(y_BCHW, expected_BCHW) < 0.1
    else:
        assert error(y_BCHW, expected_BCHW) == 0


needs_bfloat16 = pytest.mark.skipif(
    used_precision(BFLOAT16, CPU) == FLOAT32, reason="the processor has no bfloat16"
)


@needs_bfloat16
def test_mixed_is_float32_up_to_the_first_stage_and_bfloat16_after(
    pixels_BHWC: NDArray[np.uint8],
) -> None:
    runner = BackboneRunner(SMALL, device=CPU, forward=MIXED)
    seen: dict[str, torch.dtype] = {}
    for name in ("stem", "layer1.0.conv1", "layer3.1.conv2"):
        runner.backbone.network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output.dtype),
            prepend=True,
        )
    y_BCHW = runner.features_of(pixels_BHWC)
    assert seen == {
        "stem": torch.float32,
        "layer1.0.conv1": torch.bfloat16,
        "layer3.1.conv2": torch.bfloat16,
    }
    expected_BCHW, _ = features(pixels_BHWC, FLOAT32)
    assert 1e-4 < error(y_BCHW, expected_BCHW) < 0.1
    assert runner.numerics.startswith("bfloat16 after stem, float32 before, batch norms folded")
    assert not torch.is_autocast_enabled("cpu")


@needs_bfloat16
def test_mixed_keeps_more_of_what_pictures_of_low_contrast_differ_in(real_weights: str) -> None:
    settings = BackboneSettings(weights=real_weights, image_size_px=128)
    levels = np.random.default_rng(0).integers(120, 126, (6, 128, 128, 3), dtype=np.uint8)
    own = {}
    for forward in (FLOAT32, MIXED, BFLOAT16):
        y_BCHW = BackboneRunner(settings, device=CPU, forward=forward).features_of(levels)
        own[forward] = y_BCHW - y_BCHW.mean(0, keepdim=True)
    assert error(own[MIXED], own[FLOAT32]) < 0.75 * error(own[BFLOAT16], own[FLOAT32])


@needs_bfloat16
@pytest.mark.parametrize(
    ("name", "layer", "last"),
    [
        ("mobilenetv2_100", "blocks.6", "blocks.0"),
        ("resnet18", "layer3", "act1"),
        ("vit_tiny_patch16_224", "blocks.3", "blocks.0"),
    ],
)
def test_networks_of_timm_know_where_float32_ends(name: str, layer: str, last: str) -> None:
    settings = BackboneSettings(
        name=name, layer=layer, weights="random", image_size_px=64, precision=MIXED
    )
    runner = BackboneRunner(settings, device=CPU)
    assert runner.numerics.startswith(f"bfloat16 after {last}, float32 before")
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    y_BCHW = runner.features_of(pixels_BHWC)
    assert y_BCHW.dtype == torch.float32
    assert y_BCHW.shape[1:] == runner.backbone.shape


@needs_bfloat16
def test_a_cut_before_the_first_stage_ends_leaves_all_in_float32(
    pixels_BHWC: NDArray[np.uint8],
) -> None:
    early = BackboneSettings(image_size_px=64, layer="stem.0", precision=MIXED)
    y_BCHW = BackboneRunner(early, device=CPU).features_of(pixels_BHWC)
    expected_BCHW = BackboneRunner(early, device=CPU, forward=FLOAT32).features_of(pixels_BHWC)
    assert torch.equal(y_BCHW, expected_BCHW)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_the_size_of_a_batch_changes_rounding_only(
    pixels_BHWC: NDArray[np.uint8], batch_size: int
) -> None:
    expected_BCHW, _ = features(pixels_BHWC, FLOAT32)
    y_BCHW, _ = features(pixels_BHWC, FLOAT32, batch_size)
    assert y_BCHW.shape == expected_BCHW.shape
    assert error(y_BCHW, expected_BCHW) < 1e-5


def test_buffers_and_arrays_are_the_same(pixels_BHWC: NDArray[np.uint8]) -> None:
    runner = BackboneRunner(SMALL, device=CPU)
    buffers = [picture.tobytes() for picture in pixels_BHWC]
    assert torch.equal(runner.features(buffers), runner.features_of(pixels_BHWC))


@pytest.mark.parametrize("calibrated", [FLOAT32, MIXED, BFLOAT16])
def test_which_precision_a_mode_means(calibrated: str) -> None:
    assert forward_precision(AUTOMATIC, calibrated) == calibrated
    assert forward_precision(COMPILED, calibrated) == calibrated
    assert forward_precision(REFERENCE, calibrated) == FLOAT32
    assert forward_precision(FLOAT32, calibrated) == FLOAT32
    assert forward_precision(MIXED, calibrated) == MIXED
    assert forward_precision(BFLOAT16, calibrated) == BFLOAT16


def test_without_a_compiler_it_is_said(
    pixels_BHWC: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    expected_BCHW, _ = features(pixels_BHWC, AUTOMATIC)
    y_BCHW, numerics = features(pixels_BHWC, COMPILED)
    assert numerics.endswith("not compiled: there is no C++ compiler (g++, or $CXX) at hand")
    assert torch.equal(y_BCHW, expected_BCHW)


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize(("precision", "limit"), [(FLOAT32, 1e-5), (MIXED, 0.02)])
def test_compiled_passes_change_rounding_only(
    pixels_BHWC: NDArray[np.uint8], precision: str, limit: float
) -> None:
    """Two batches, the second not full."""
    settings = BackboneSettings(image_size_px=64, precision=precision)
    runner = BackboneRunner(settings, batch_size=3, device=CPU, forward=COMPILED)
    expected_BCHW, _ = features(pixels_BHWC, precision)
    assert runner.numerics.endswith(", compiled")
    assert error(runner.features_of(pixels_BHWC), expected_BCHW) < limit


@needs_bfloat16
def test_what_is_recorded_keeps_its_own_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in review: run in autocast once more, the part in float32 was cast as well."""
    monkeypatch.setattr(compilation.torch, "compile", lambda graph, options: graph)
    settings = BackboneSettings(
        name="vit_tiny_patch16_224",
        layer="blocks.1",
        weights="random",
        image_size_px=64,
        precision=MIXED,
    )
    torch.manual_seed(0)
    plain = BackboneRunner(settings, batch_size=2, device=CPU)
    torch.manual_seed(0)
    recorded = BackboneRunner(settings, batch_size=2, device=CPU, forward=COMPILED)
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    y_BCHW, expected_BCHW = (r.features_of(pixels_BHWC) for r in (recorded, plain))
    assert error(y_BCHW, expected_BCHW) < 1e-6


@pytest.mark.parametrize(
    ("stages", "expected"),
    [(["stem", "layer1"], "layer1"), (["", "layer1"], "layer1"), ([""], None), (None, None)],
)
def test_a_stage_that_the_network_does_not_have_is_none(
    stages: list[str] | None, expected: str | None
) -> None:
    network = torch.nn.Sequential()
    network.add_module("layer1", torch.nn.Identity())
    if stages is not None:
        network.feature_info = [{"module": name} for name in stages]  # type: ignore[assignment]
    if expected is None:
        with pytest.raises(ConfigError, match="does not say what its stages are"):
            first_stage("net", network)
    else:
        assert first_stage("net", network) == expected
