"""The aggregate is chosen without real defects, and the mean stays unless another is far better."""

import torch

from nfbmr.model.scoring import AGGREGATES
from nfbmr.train.aggregate import NEEDED_GAIN_AUROC, choose_aggregate, synthetic_aurocs


def maps(seed: int) -> torch.Tensor:
    return torch.randn(100, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_small_bright_defects_choose_a_local_aggregate() -> None:
    defective_BHW = maps(1)
    defective_BHW[:, 3, 3] += 8.0
    aurocs = synthetic_aurocs(maps(0), defective_BHW)
    assert set(aurocs) == set(AGGREGATES)
    assert aurocs["max"] == 1.0
    assert choose_aggregate(aurocs) != "mean"


def test_faint_large_defects_choose_the_mean() -> None:
    aurocs = synthetic_aurocs(maps(0), maps(1) + 0.3)
    assert aurocs["mean"] > aurocs["max"]
    assert choose_aggregate(aurocs) == "mean"


def test_a_small_gain_is_not_enough() -> None:
    assert choose_aggregate({"mean": 0.9, "max": 0.9 + NEEDED_GAIN_AUROC / 2}) == "mean"
    assert choose_aggregate({"mean": 0.9, "max": 0.9 + NEEDED_GAIN_AUROC * 1.01}) == "max"
