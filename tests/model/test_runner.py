"""Fast forward passes compute what the plain network computes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.compilation import compiler
from nfbmr.model.precision import (
    AUTOMATIC,
    BFLOAT16,
    COMPILED,
    FLOAT32,
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


@pytest.mark.parametrize("calibrated", [FLOAT32, BFLOAT16])
def test_which_precision_a_mode_means(calibrated: str) -> None:
    assert forward_precision(AUTOMATIC, calibrated) == calibrated
    assert forward_precision(COMPILED, calibrated) == calibrated
    assert forward_precision(REFERENCE, calibrated) == FLOAT32
    assert forward_precision(FLOAT32, calibrated) == FLOAT32
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
def test_compiled_passes_change_rounding_only(pixels_BHWC: NDArray[np.uint8]) -> None:
    """Two batches, the second not full."""
    expected_BCHW, _ = features(pixels_BHWC, REFERENCE)
    y_BCHW, numerics = features(pixels_BHWC, COMPILED, 3)
    assert numerics.endswith(", compiled")
    assert error(y_BCHW, expected_BCHW) < 1e-5
