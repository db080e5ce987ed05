"""Detectors of many categories, loaded as their pictures come by, within a memory budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch

from nfbmr.model.detector import Detector


class HeadsCache:
    """Least recently used detectors are dropped when the budget is exceeded.

    Args:
        load: fetches a category's detector.
        budget_mib: memory for heads; the one in use is kept even if it is larger.
        device: where heads are moved to.
    """

    def __init__(
        self, load: Callable[[str], Detector], budget_mib: int, device: torch.device
    ) -> None:
        self._load = load
        self._budget_bytes = budget_mib * 2**20
        self._device = device
        self._detectors: OrderedDict[str, Detector] = OrderedDict()

    def __iter__(self) -> Iterator[str]:
        """The categories that are loaded, least recently used first."""
        return iter(self._detectors)

    def get(self, category: str) -> Detector:
        """The detector of a category, loaded now if it was not."""
        if category not in self._detectors:
            detector = self._load(category)
            detector.heads.to(self._device).to(memory_format=torch.channels_last)
            self._detectors[category] = detector
        self._detectors.move_to_end(category)
        while len(self._detectors) > 1 and self._bytes() > self._budget_bytes:
            self._detectors.popitem(last=False)
        return self._detectors[category]

    def _bytes(self) -> int:
        tensors = (t for d in self._detectors.values() for t in d.heads.state_dict().values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
