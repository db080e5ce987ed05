"""A category of Table 5 that is fitted in a second."""

from pathlib import Path

import torch

from nfbmr.benchmark.ablation_task import AblationTask
from nfbmr.config import load_config
from nfbmr.train.feature_cache import FeatureCache
from tests.train.test_fit import features

CONFIG = load_config(
    None,
    [
        "flow.hidden_channels=16",
        "mapper.latent_channels=8",
        "mapper.block_channels=4",
        "fit.flow_epochs=3",
        "fit.mapper_epochs=3",
        "fit.min_steps=1",
        "fit.precision=float32",
    ],
)


def _write(cache: FeatureCache, kind: str, y_NCHW: torch.Tensor) -> list[str]:
    entries = [f"{kind}-{i:02d}" for i in range(len(y_NCHW))]
    for entry, y_CHW in zip(entries, y_NCHW, strict=True):
        cache.write(entry, y_CHW)
    return entries


def make_task(folder: Path, category: str = "bottle", scale: float = 1.0) -> AblationTask:
    """A task, and its features in a folder.

    Args:
        folder: of the feature cache.
        category: its name.
        scale: of the features to fit on; one that is not finite makes the fit diverge.
    """
    cache = FeatureCache(str(folder), "backbone")
    test_NCHW = torch.cat([features(10, seed=2), features(10, seed=3) * 1.5])
    return AblationTask(
        category=category,
        seed=0,
        config=CONFIG,
        cache_root=str(folder),
        backbone_key="backbone",
        fit_entries=_write(cache, f"{category}-fit", features(40) * scale),
        held_out_entries=_write(cache, "held", features(10, seed=1)),
        synthetic_entries=_write(cache, "cut", features(10, seed=1) * 2),
        test_entries=_write(cache, "test", test_NCHW),
        is_defective=[False] * 10 + [True] * 10,
    )
