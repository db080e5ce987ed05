"""Resident and streamed features are the same features, and memory decides which."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nfbmr.errors import FeaturesError, FitError
from nfbmr.fit_settings import FitSettings
from nfbmr.model.heads import Heads, Standardizer
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.training_features import (
    InCache,
    InMemory,
    RawFeatures,
    ResidentFeatures,
    StreamedFeatures,
    resident_bytes,
    training_features,
)
from tests.train.test_fit import FIT, HEADS, SHAPE, features

CPU = torch.device("cpu")
COUNT = 40


@pytest.fixture
def in_cache(tmp_path: Path) -> InCache:
    cache = FeatureCache(str(tmp_path), "backbone")
    entries = [f"{i:04d}" for i in range(COUNT)]
    for entry, y_CHW in zip(entries, features(COUNT), strict=True):
        cache.write(entry, y_CHW)
    return InCache(cache, entries)


def fit(raw: RawFeatures, **changes: object) -> tuple[Heads, list[EpochLosses]]:
    losses: list[EpochLosses] = []
    settings = dataclasses.replace(FIT, **changes)  # type: ignore[arg-type]
    return fit_heads(raw, HEADS, settings, category="bottle", report=losses.append), losses


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_streamed_from_the_cache_gives_the_losses_of_resident(
    in_cache: InCache, precision: str
) -> None:
    in_memory = InMemory(features(COUNT).half())
    one, resident = fit(in_memory, features="resident", precision=precision)
    two, streamed = fit(in_cache, features="streamed", precision=precision)
    assert len(resident) == len(streamed) == 12
    tolerance = 1e-5 if precision == "float32" else 1e-2
    for a, b in zip(resident, streamed, strict=True):
        assert (a.stage, a.epoch) == (b.stage, b.epoch)
        assert a.losses == pytest.approx(b.losses, rel=tolerance, abs=tolerance)
    assert torch.equal(one.standardizer.scale_1C11, two.standardizer.scale_1C11)
    if precision == "float32":
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_memory_decides_unless_the_settings_do() -> None:
    raw = InMemory(features(COUNT))
    needed = resident_bytes(raw.shape, "float32", with_targets=True)
    assert needed == 3 * features(COUNT).numel() * 4
    large = InMemory(features(1).expand(4096, *SHAPE))

    def kind(raw: RawFeatures, share: float = 1.0, **changes: object) -> type:
        settings = FitSettings(precision="float32", **changes)  # type: ignore[arg-type]
        standardizer = Standardizer(SHAPE[0])
        return type(
            training_features(
                raw, standardizer, settings, CPU, with_targets=True, memory_share=share
            )
        )

    assert kind(raw) is ResidentFeatures
    assert kind(raw, share=1e-9) is StreamedFeatures
    assert kind(raw, feature_memory_mib=1) is ResidentFeatures
    assert kind(large, feature_memory_mib=1) is StreamedFeatures
    assert kind(raw, features="streamed") is StreamedFeatures
    with pytest.raises(FitError, match=r"need 6 MiB on cpu, but 1 MiB may be used"):
        kind(large, features="resident", feature_memory_mib=1)


def test_a_damaged_entry_ends_a_streamed_fit_with_what_to_do(in_cache: InCache) -> None:
    entry = next(Path(in_cache.cache.root).glob("*/0007.features"))
    entry.write_bytes(entry.read_bytes()[:-3])
    with pytest.raises(FeaturesError, match=r"first 0007: run the same command again"):
        fit(in_cache, features="streamed")
