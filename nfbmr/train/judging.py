"""What a fit leaves behind for the promotion gate and for people who look at a version.

Shapes: H, W height and width of an anomaly map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nfbmr.model.scoring import image_scores
from nfbmr.train.evidence import Evidence
from nfbmr.train.sample_pictures import draw_heatmaps

Maps = Mapping[str, Tensor]
"""Anomaly maps (H, W), float32, by the name of the picture in the feature cache."""


@dataclass(frozen=True)
class JudgedPictures:
    """Anomaly maps of every picture by heads that were not fitted on it.

    Attributes:
        normal: of the pictures that calibrate.
        synthetic: of those with synthetic defects.
        labelled: of labelled test pictures.
        defective: those of ``labelled`` that are defective.
        fitted: names of the pictures that were fitted on and are not among ``normal``.
        uris: where the pictures lie.
        cache_root: where their features are.
        backbone_key: whose these are.
    """

    normal: Maps
    synthetic: Maps
    labelled: Maps
    defective: frozenset[str]
    fitted: tuple[str, ...]
    uris: Mapping[str, str]
    cache_root: str
    backbone_key: str

    def leave(self, folder: Path, aggregate: str) -> None:
        """Write ``evidence.json`` and ``heatmaps.png`` beside the detector.

        Args:
            folder: of the detector.
            aggregate: from map to image score.
        """
        normal = self._in_order_of_names(_scores(self.normal, aggregate))
        synthetic = _scores(self.synthetic, aggregate)
        labelled = _scores(self.labelled, aggregate)
        evidence = Evidence(
            held_out=normal,
            synthetic=synthetic,
            labelled=labelled,
            defective=tuple(name for name in labelled if name in self.defective),
            fitted=self.fitted,
            cache_root=self.cache_root,
            backbone_key=self.backbone_key,
        )
        evidence.save(folder)
        defective = {name: labelled[name] for name in evidence.defective}
        worse = {"defective": defective} if defective else {"synthetic defect": synthetic}
        maps = {**self.labelled, **self.synthetic, **self.normal}
        draw_heatmaps(folder, {"normal": normal, **worse}, maps, self.uris)

    def _in_order_of_names(self, scores: dict[str, float]) -> dict[str, float]:
        """In the order of the files' names, which is mostly that in which they were taken."""
        return dict(sorted(scores.items(), key=lambda item: self.uris.get(item[0], "")))


def _scores(maps: Maps, aggregate: str) -> dict[str, float]:
    if not maps:
        return {}
    return dict(
        zip(maps, image_scores(torch.stack(list(maps.values())), aggregate).tolist(), strict=True)
    )
