"""Where a fit's features lie: all of them on the device, or read batch by batch.

Both give the same batches: standardised, in the fit's precision, channels last; for the mapper's
stage with ``z`` beside ``y``. Resident features cost no time; streamed ones cost a read of the
feature cache per epoch and, in the mapper's stage, a forward pass of the frozen flow per step.

Shapes: N training pictures, B pictures of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from nfbmr.errors import FitError
from nfbmr.fit_settings import FitSettings
from nfbmr.model.flow import Flow
from nfbmr.model.heads import Standardizer
from nfbmr.model.precision import BFLOAT16, autocast
from nfbmr.train.device_memory import free_memory_bytes
from nfbmr.train.feature_cache import FeatureCache

_CHUNK = 128
_FREE_SHARE = 0.5
"""Of the free memory that is a fit's own: the rest is for weights and activations."""


class RawFeatures(Protocol):
    """Features of the training pictures as the backbone gave them."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""

    def rows(self, index_B: Sequence[int]) -> Tensor:
        """Some of the pictures, (B, C, H, W), on the CPU."""


class InMemory:
    """Features that are a tensor already.

    Args:
        y_NCHW: any float dtype, on the CPU.
    """

    def __init__(self, y_NCHW: Tensor) -> None:
        self.y_NCHW = y_NCHW

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        count, channels, height, width = self.y_NCHW.shape
        return count, channels, height, width

    def rows(self, index_B: Sequence[int]) -> Tensor:
        """Some of the pictures."""
        return self.y_NCHW[list(index_B)]


class InCache:
    """Features that lie in the feature cache and are read when they are asked for.

    Args:
        cache: where.
        entries: of the pictures.

    Raises:
        FeaturesError: an entry is missing or damaged; the first one here, others when they are
            read.
    """

    def __init__(self, cache: FeatureCache, entries: Sequence[str]) -> None:
        self.cache = cache
        self.entries = list(entries)
        _, channels, height, width = self.rows([0]).shape if entries else (0, 0, 0, 0)
        self._shape = (len(self.entries), channels, height, width)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self._shape

    def rows(self, index_B: Sequence[int]) -> Tensor:
        """Some of the pictures, float16."""
        return self.cache.load([self.entries[i] for i in index_B])


def chunks(raw: RawFeatures, size: int) -> Iterator[Tensor]:
    """All features in order, so many pictures at a time; the next are read meanwhile."""
    count = raw.shape[0]
    yield from _read_ahead(raw, [range(i, min(i + size, count)) for i in range(0, count, size)])


def _read_ahead(raw: RawFeatures, indices: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(raw.rows, indices[0]) if indices else None
        for following in [*indices[1:], None]:
            assert coming is not None
            rows = coming.result()
            if following is not None:
                coming = pool.submit(raw.rows, following)
            yield rows


class TrainingFeatures(Protocol):
    """What the fit loop takes its batches from."""

    count: int

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """For each index tensor (B,) the pictures' ``y``, and ``z`` once there are targets."""

    def set_targets(self, flow: Flow) -> None:
        """From now on give ``z`` as well; the flow is frozen."""


class ResidentFeatures:
    """All features on the device, moved there once.

    Args:
        raw: where they come from.
        standardizer: fitted, on the device.
        precision: of the fit.
        device: where they go.
    """

    def __init__(
        self, raw: RawFeatures, standardizer: Standardizer, precision: str, device: torch.device
    ) -> None:
        self.count = raw.shape[0]
        self.precision = precision
        self.device = device
        with torch.no_grad():
            parts = [
                standardizer(chunk.to(device)).to(storage_dtype(precision))
                for chunk in chunks(raw, _CHUNK)
            ]
        self.y_NCHW = torch.cat(parts).contiguous(memory_format=torch.channels_last)
        self.z_NCHW: Tensor | None = None

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """See ``TrainingFeatures``."""
        for index_B in indices:
            on_device_B = index_B.to(self.device)
            y_BCHW = self.y_NCHW[on_device_B].float()
            if self.z_NCHW is None:
                yield (y_BCHW,)
            else:
                yield y_BCHW, self.z_NCHW[on_device_B].float()

    def set_targets(self, flow: Flow) -> None:
        """See ``TrainingFeatures``."""
        parts = [_targets(flow, chunk, self.precision) for chunk in self.y_NCHW.split(64)]
        self.z_NCHW = torch.cat(parts).contiguous(memory_format=torch.channels_last)


class StreamedFeatures:
    """Features that are read again in every epoch, the next batch while one is computed on.

    Args:
        raw: where they come from.
        standardizer: fitted, on the device.
        precision: of the fit.
        device: where they go.
    """

    def __init__(
        self, raw: RawFeatures, standardizer: Standardizer, precision: str, device: torch.device
    ) -> None:
        self.count = raw.shape[0]
        self.raw = raw
        self.standardizer = standardizer
        self.precision = precision
        self.device = device
        self.flow: Flow | None = None

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """See ``TrainingFeatures``."""
        for rows_BCHW in _read_ahead(self.raw, [index_B.tolist() for index_B in indices]):
            with torch.no_grad():
                y_BCHW = self.standardizer(rows_BCHW.to(self.device))
                y_BCHW = y_BCHW.to(storage_dtype(self.precision))
                y_BCHW = y_BCHW.contiguous(memory_format=torch.channels_last)
            if self.flow is None:
                yield (y_BCHW.float(),)
            else:
                yield y_BCHW.float(), _targets(self.flow, y_BCHW, self.precision).float()

    def set_targets(self, flow: Flow) -> None:
        """See ``TrainingFeatures``."""
        self.flow = flow.eval()


@torch.no_grad()
def _targets(flow: Flow, y_BCHW: Tensor, precision: str) -> Tensor:
    """``z``: the flow is frozen while the mapper is fitted (section 3)."""
    flow.eval()
    with autocast(precision, y_BCHW.device):
        z_BCHW, _ = flow(y_BCHW.float())
    rounded: Tensor = z_BCHW.to(storage_dtype(precision))
    return rounded


def storage_dtype(precision: str) -> torch.dtype:
    """Of the features that a fit keeps on its device: half the memory where precision allows."""
    return torch.bfloat16 if precision == BFLOAT16 else torch.float32


def training_features(
    raw: RawFeatures,
    standardizer: Standardizer,
    settings: FitSettings,
    device: torch.device,
    *,
    with_targets: bool,
    memory_share: float = 1.0,
) -> TrainingFeatures:
    """The features where the settings say, or where they fit.

    Args:
        raw: where they come from.
        standardizer: fitted, on the device.
        settings: ``features`` and ``feature_memory_mib``.
        device: of the fit.
        with_targets: whether ``z`` will be kept beside ``y``.
        memory_share: of the device's free memory that is this fit's.

    Raises:
        FitError: they are to be resident, but do not fit.
    """
    needed = resident_bytes(raw.shape, settings.precision, with_targets=with_targets)
    free = memory_share * free_memory_bytes(device)
    allowed = settings.feature_memory_mib * 2**20 or int(_FREE_SHARE * free)
    if settings.features == "streamed" or (settings.features == "auto" and needed > allowed):
        return StreamedFeatures(raw, standardizer, settings.precision, device)
    if needed > allowed:
        raise FitError(
            f"The features need {needed / 2**20:.0f} MiB on {device}, but {allowed / 2**20:.0f} "
            "MiB may be used: set fit.features = 'streamed' or 'auto', or raise "
            "fit.feature_memory_mib."
        )
    return ResidentFeatures(raw, standardizer, settings.precision, device)


def resident_bytes(shape: tuple[int, int, int, int], precision: str, *, with_targets: bool) -> int:
    """Peak memory of resident features: while they are joined, there are two copies of one."""
    count, channels, height, width = shape
    one = count * channels * height * width * storage_dtype(precision).itemsize
    return one * (3 if with_targets else 2)
