"""What one device does per second, beside its own measured ceilings.

Meant for a GPU; it runs on a CPU as well, where the numbers say little and the code is the same.
Where the configuration names the network, its weights are random: speed does not depend on them.

Shapes: B pictures of a batch, C, H, W of the features, N side of a square matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nfbmr.config import Config
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.heads import Heads
from nfbmr.model.runner import BackboneRunner, best_device
from nfbmr.model.weights import RANDOM
from nfbmr.progress import Progress
from nfbmr.score.forward import score_columns

_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    Attributes:
        batch_size: pictures of a forward pass.
        unit_size: pictures that the whole actor scores at a time.
        matrix: side of the square matrices of the matmul ceiling.
        copy_mib: of the buffers of the memory ceilings.
        least_s: that every measurement takes at least.
    """

    batch_size: int = 32
    unit_size: int = 64
    matrix: int = 8192
    copy_mib: int = 1024
    least_s: float = 3.0


@dataclass(frozen=True)
class DeviceRates:
    """What was measured.

    Attributes:
        device: its name.
        numerics: how the backbone was computed.
        shape: (C, H, W) of the features.
        matmul_tflop_per_s: ceiling: square matrices in bfloat16.
        copy_gb_per_s: ceiling: a buffer copied on the device; bytes read and written both count.
        upload_gb_per_s: ceiling: page-locked memory to the device.
        backbone_per_s: images/s, ``uint8`` pixels on the device to features.
        backbone_gflop: of one picture.
        heads_per_s: images/s, features to scores and maps.
        heads_gflop: of one picture.
        actor_per_s: images/s of all that an actor does after decoding: upload of ``uint8`` pixels,
            backbone, heads, scores and maps back as columns.
    """

    device: str
    numerics: str
    shape: tuple[int, int, int]
    matmul_tflop_per_s: float
    copy_gb_per_s: float
    upload_gb_per_s: float
    backbone_per_s: float
    backbone_gflop: float
    heads_per_s: float
    heads_gflop: float
    actor_per_s: float

    def share_of_matmul(self, per_s: float, gflop: float) -> float:
        """Of the matmul ceiling that so many images/s of so many operations reach."""
        return per_s * gflop * _GIGA / (self.matmul_tflop_per_s * _TERA)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with shares of the matmul ceiling."""
        return {
            **asdict(self),
            "backbone_share_of_matmul": self.share_of_matmul(
                self.backbone_per_s, self.backbone_gflop
            ),
            "heads_share_of_matmul": self.share_of_matmul(self.heads_per_s, self.heads_gflop),
        }


@torch.inference_mode()
def measure_device(
    config: Config, sizes: Sizes, progress: Progress, device: torch.device | None = None
) -> DeviceRates:
    """Measure the ceilings, then backbone, heads and the whole actor.

    Args:
        config: of backbone and heads.
        sizes: how much is computed.
        progress: where it says how far it is.
        device: the first GPU by default, else the CPU.
    """
    device = device or best_device()
    settings = config.backbone
    if settings.name:
        settings = replace(settings, weights=RANDOM)
    runner = BackboneRunner(
        settings, batch_size=sizes.batch_size, device=device, forward=config.run.forward
    )
    detector = _detector(config, runner)
    generator = np.random.default_rng(0)
    size = settings.image_size_px
    pixels_BHWC = generator.integers(0, 256, (sizes.unit_size, size, size, 3), dtype=np.uint8)
    on_device_BHWC = torch.from_numpy(pixels_BHWC[: sizes.batch_size]).to(device)
    y_BCHW = runner.forward(on_device_BHWC)

    def per_s(what: str, count: int, work: Callable[[], object]) -> float:
        rate = count / _seconds(work, device, sizes.least_s)
        progress.say(f"{what}: {rate:.1f} images/s")
        return rate

    return DeviceRates(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        numerics=runner.numerics,
        shape=runner.backbone.shape,
        **_ceilings(sizes, device),
        backbone_per_s=per_s(
            "backbone", len(on_device_BHWC), lambda: runner.forward(on_device_BHWC)
        ),
        backbone_gflop=_gflop(lambda: runner.forward(on_device_BHWC[:1])),
        heads_per_s=per_s("heads", len(y_BCHW), lambda: detector.score_features(y_BCHW)),
        heads_gflop=_gflop(lambda: detector.score_features(y_BCHW[:1])),
        actor_per_s=per_s(
            "actor",
            sizes.unit_size,
            lambda: score_columns(
                detector, detector.score_features(runner.features_of(pixels_BHWC))
            ),
        ),
    )


def _detector(config: Config, runner: BackboneRunner) -> Detector:
    """Heads as they are before a fit."""
    heads = Heads(runner.backbone.shape, config.heads).eval().requires_grad_(False)
    return Detector(
        category="benchmark",
        backbone=runner.backbone.identity(),
        weights=runner.backbone.settings.weights,
        heads=heads.to(runner.device).to(memory_format=torch.channels_last),
        aggregate="mean",
        calibration=Calibration.from_scores([float(i) for i in range(1, 101)]),
        false_alarm_rate=config.calibration.false_alarm_rate,
    )


def _ceilings(sizes: Sizes, device: torch.device) -> dict[str, float]:
    a_NN = torch.randn(sizes.matrix, sizes.matrix, device=device).to(torch.bfloat16)
    matmul_s = _seconds(lambda: a_NN @ a_NN, device, sizes.least_s)
    count = sizes.copy_mib * 2**20
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.zeros(count, dtype=torch.uint8)
    if device.type == "cuda":
        host = host.pin_memory()
    copy_s = _seconds(lambda: target.copy_(source), device, sizes.least_s)
    upload_s = _seconds(lambda: target.copy_(host, non_blocking=True), device, sizes.least_s)
    return {
        "matmul_tflop_per_s": 2 * sizes.matrix**3 / matmul_s / _TERA,
        "copy_gb_per_s": 2 * count / copy_s / _GIGA,
        "upload_gb_per_s": count / upload_s / _GIGA,
    }


def _seconds(work: Callable[[], object], device: torch.device, least_s: float) -> float:
    """Mean wall-clock seconds of one call, after two to warm up."""
    for _ in range(2):
        work()
    _wait(device)
    calls = 0
    started = time.perf_counter()
    while True:
        work()
        calls += 1
        # The queue is emptied now and then only: a GPU is not to wait for Python.
        if calls % 8 == 0 or device.type != "cuda":
            _wait(device)
            elapsed_s = time.perf_counter() - started
            if elapsed_s >= least_s:
                return elapsed_s / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gflop(work: Callable[[], object]) -> float:
    """Floating-point operations of matrix products and convolutions, a multiply-add as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / _GIGA
