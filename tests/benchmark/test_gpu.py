"""The benchmark of one device, on the CPU at small sizes."""

import pytest
import torch

from nfbmr.benchmark.gpu import Sizes, measure_device
from nfbmr.benchmark.gpu_table import device_table
from nfbmr.config import load_config
from nfbmr.progress import Progress


def test_rates_ceilings_and_operations() -> None:
    config = load_config(None, ["backbone.image_size_px=64"], "small")
    sizes = Sizes(batch_size=2, unit_size=3, matrix=64, copy_mib=1, least_s=0.01)
    rates = measure_device(config, sizes, Progress(quiet=True), torch.device("cpu"))
    values = rates.as_dict()
    numbers = [value for value in values.values() if not isinstance(value, str)]
    assert all(value > 0 for value in numbers)
    # A picture of four times the pixels takes four times the operations.
    larger = load_config(None, ["backbone.image_size_px=128"], "small")
    twice = measure_device(larger, sizes, Progress(quiet=True), torch.device("cpu"))
    assert twice.backbone_gflop == pytest.approx(4 * rates.backbone_gflop, rel=0.05)
    assert twice.heads_gflop == pytest.approx(4 * rates.heads_gflop, rel=0.05)
    assert "backbone" in device_table(rates)
