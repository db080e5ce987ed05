"""The benchmark of one device, on the CPU at small sizes."""

import pytest
import torch

from nfbmr.benchmark.fits_together import FitsRequest, measure_fits_together
from nfbmr.benchmark.gpu import Sizes, measure_device
from nfbmr.benchmark.gpu_table import device_table, fits_table
from nfbmr.config import load_config
from nfbmr.errors import WorkerError
from nfbmr.progress import Progress


def test_rates_ceilings_and_operations() -> None:
    config = load_config(None, ["backbone.image_size_px=64"], "small")
    sizes = Sizes(batch_size=2, unit_size=3, matrix=64, copy_mib=1, least_s=0.01)
    rates = measure_device(config, sizes, Progress(quiet=True), torch.device("cpu"))
    values = rates.as_dict()
    numbers = [value for value in values.values() if isinstance(value, float)]
    assert len(numbers) == 10
    assert all(value > 0 for value in numbers)
    # A picture of four times the pixels takes four times the operations.
    larger = load_config(None, ["backbone.image_size_px=128"], "small")
    twice = measure_device(larger, sizes, Progress(quiet=True), torch.device("cpu"))
    assert twice.backbone_gflop == pytest.approx(4 * rates.backbone_gflop, rel=0.05)
    assert twice.heads_gflop == pytest.approx(4 * rates.heads_gflop, rel=0.05)
    assert "backbone" in device_table(rates)


def test_fits_side_by_side() -> None:
    config = load_config(None, ["flow.hidden_channels=16", "fit.batch_size=4"], "small")
    request = FitsRequest(config, (8, 4, 4), 8, 3, torch.device("cpu"))
    results = measure_fits_together(request, [2], Progress(quiet=True))
    assert [result.fits for result in results] == [2]
    for result in results:
        assert result.flow_epoch_s > 0
        assert result.mapper_epoch_s > 0
        expected = result.fits * 3600 / (300 * (result.flow_epoch_s + result.mapper_epoch_s))
        assert result.categories_per_hour == pytest.approx(expected)
    assert "categories/h" in fits_table(results)


def test_a_fit_that_dies_beside_others_is_said() -> None:
    config = load_config(None, [], "small")
    # No features at all: every process ends with an error of its own.
    request = FitsRequest(config, (8, 4, 4), 0, 3, torch.device("cpu"))
    with pytest.raises(WorkerError, match="1 of 1 fits side by side ended with exit code 1"):
        measure_fits_together(request, [1], Progress(quiet=True))
