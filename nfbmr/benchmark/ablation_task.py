"""One category and seed of Table 5: what is fitted and tested, and the five rows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfbmr.benchmark.accuracy import image_auroc_of
from nfbmr.config import Config
from nfbmr.model.heads import Heads
from nfbmr.model.mapper import MapperSettings
from nfbmr.model.runner import best_device
from nfbmr.model.scoring import image_scores
from nfbmr.published import TABLE5, AblationRow
from nfbmr.train.aggregate import SIMPLEST, choose_aggregate, synthetic_aurocs
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import fit_heads
from nfbmr.train.held_out_maps import anomaly_maps
from nfbmr.train.training_features import InCache


@dataclass(frozen=True)
class AblationTask:
    """One category and seed.

    Attributes:
        category: the product type.
        seed: of split and fits.
        config: its mapper is replaced by each row's.
        cache_root: where the features are.
        backbone_key: which backbone's.
        fit_entries: to fit on.
        held_out_entries: normal pictures for the choice of the aggregate.
        synthetic_entries: the same with synthetic defects.
        test_entries: labelled pictures.
        is_defective: their labels.
    """

    category: str
    seed: int
    config: Config
    cache_root: str
    backbone_key: str
    fit_entries: Sequence[str]
    held_out_entries: Sequence[str]
    synthetic_entries: Sequence[str]
    test_entries: Sequence[str]
    is_defective: Sequence[bool]


@dataclass(frozen=True)
class RowResult:
    """One row of Table 5 on one category with one seed.

    Attributes:
        category: the product type.
        seed: of split and fits.
        row: place in ``TABLE5``.
        aggregate: that was chosen without labels.
        image_auroc: with that aggregate.
        image_auroc_of_mean: with the mean of the map.
    """

    category: str
    seed: int
    row: int
    aggregate: str
    image_auroc: float
    image_auroc_of_mean: float


def ablate(task: AblationTask) -> list[RowResult]:
    """All rows of Table 5 on one category; the flow is fitted once."""
    device = best_device()
    cache = FeatureCache(task.cache_root, task.backbone_key)
    flow_only: Heads | None = None
    results = []
    for row in sorted(range(len(TABLE5)), key=lambda row: TABLE5[row].mapper != "none"):
        config = with_mapper(task.config, TABLE5[row])
        heads = fit_heads(
            InCache(cache, task.fit_entries),
            config.heads,
            config.fit,
            category=task.category,
            device=device,
            fitted_flow=flow_only,
        )
        flow_only = flow_only or heads
        maps = {
            name: anomaly_maps(heads, cache.load(list(entries)), device)
            for name, entries in (
                ("normal", task.held_out_entries),
                ("synthetic", task.synthetic_entries),
                ("test", task.test_entries),
            )
        }
        aggregate = choose_aggregate(synthetic_aurocs(maps["normal"], maps["synthetic"]))
        truth_N = np.array(task.is_defective)

        def auroc(name: str, test_NHW: Any = maps["test"], truth_N: Any = truth_N) -> float:
            return image_auroc_of(truth_N, image_scores(test_NHW, name).numpy())

        results.append(
            RowResult(task.category, task.seed, row, aggregate, auroc(aggregate), auroc(SIMPLEST))
        )
    return sorted(results, key=lambda result: result.row)


def with_mapper(config: Config, row: AblationRow) -> Config:
    """The configuration with the mapper of a row; widths stay as they are."""
    blocks = config.mapper.residual_blocks if row.residual_blocks is None else row.residual_blocks
    mapper: MapperSettings = replace(config.mapper, kind=row.mapper, residual_blocks=blocks)
    return replace(config, mapper=mapper)


def row_name(row: AblationRow) -> str:
    """As it stands in tables."""
    if row.mapper == "none":
        return "flow only"
    blocks = "" if row.residual_blocks is None else f", n = {row.residual_blocks}"
    return f"flow + {row.mapper.upper()}{blocks}"
