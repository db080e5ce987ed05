"""Detectors are loaded as they are needed and dropped by memory, least recently used first."""

from dataclasses import dataclass, field

import torch
from torch import nn

from nfbmr.model.detector import Detector
from nfbmr.score.heads_cache import HeadsCache


@dataclass
class Loader:
    mib: int
    loaded: list[str] = field(default_factory=list)

    def __call__(self, category: str) -> Detector:
        self.loaded.append(category)
        detector = object.__new__(Detector)
        detector.heads = nn.Linear(self.mib * 2**18, 1, bias=False)  # type: ignore[assignment]
        return detector


def test_a_category_is_loaded_once_while_it_fits() -> None:
    loader = Loader(mib=1)
    cache = HeadsCache(loader, budget_mib=3, device=torch.device("cpu"))
    for category in ("a", "b", "c", "a", "b", "c"):
        cache.get(category)
    assert loader.loaded == ["a", "b", "c"]


def test_the_least_recently_used_goes_first() -> None:
    loader = Loader(mib=1)
    cache = HeadsCache(loader, budget_mib=2, device=torch.device("cpu"))
    for category in ("a", "b", "a", "c"):
        cache.get(category)
    assert list(cache) == ["a", "c"]


def test_one_that_is_larger_than_the_budget_is_used_all_the_same() -> None:
    loader = Loader(mib=4)
    cache = HeadsCache(loader, budget_mib=1, device=torch.device("cpu"))
    cache.get("a")
    cache.get("b")
    assert list(cache) == ["b"]
