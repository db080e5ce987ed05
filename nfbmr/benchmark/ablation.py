"""The paper's Table 5 on any labelled data: the flow with each mapper, and alone.

For every category and seed the flow is fitted once and shared by all five rows, as the paper does
it: the mapper is fitted on a frozen flow. Every category and seed is a task of its own on the
cluster. Each row picks its aggregate without labels, as a training run does; test labels are looked
at after the last epoch only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray

from nfbmr.benchmark.accuracy import (
    AccuracyRequest,
    Spread,
    image_auroc_of,
    labelled_tests,
)
from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample
from nfbmr.errors import NfbmrError
from nfbmr.model.heads import Heads
from nfbmr.model.mapper import MapperSettings
from nfbmr.model.runner import best_device
from nfbmr.model.scoring import image_scores
from nfbmr.progress import Progress, table
from nfbmr.published import TABLE5, AblationRow
from nfbmr.resources import cluster_gpus
from nfbmr.train.aggregate import SIMPLEST, choose_aggregate, synthetic_aurocs
from nfbmr.train.campaign import CampaignPaths
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.features import compute_features
from nfbmr.train.fit import fit_heads
from nfbmr.train.fit_capacity import cpus_of_fit
from nfbmr.train.held_out_maps import anomaly_maps
from nfbmr.train.split import Split, split_normals
from nfbmr.train.training_features import InCache

_SAID_EVERY_S = 30.0


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


def measure_ablation(request: AccuracyRequest, progress: Progress) -> list[RowResult]:
    """Fit and test all rows. Needs a Ray session.

    Raises:
        DataError: there are no labelled test pictures of both kinds, or too few normals.
        FitError: a fit diverged.
    """
    samples = discover(request.data, request.layout, request.categories)
    tests = labelled_tests(samples)
    # Nothing is calibrated here: pictures are held out for the choice of the aggregate alone.
    calibration = replace(request.config.calibration, folds=1, false_alarm_rate=0.5)
    splits = {
        (category, seed): split_normals(samples, category, calibration, seed)
        for category in tests
        for seed in request.seeds
    }
    paths = CampaignPaths.under(str(request.work_dir))
    wanted = {Picture(sample.uri) for own in tests.values() for sample in own}
    wanted |= {picture for split in splits.values() for picture in _training_pictures(split)}
    with progress.counter("features", len(wanted)) as count:
        index = compute_features(
            list(wanted), request.config.backbone, paths.features, request.config.run,
            lambda done, _: count(done),
        )  # fmt: skip
    tasks = [
        _task(category, seed, split, tests[category], index, request.config, paths.features)
        for (category, seed), split in splits.items()
    ]
    results: list[RowResult] = []
    for done in _run_all(tasks, progress):
        results += done
        said = ", ".join(f"{_name(TABLE5[r.row])} {r.image_auroc:.4f}" for r in done)
        progress.say(f"{done[0].category}, seed {done[0].seed}: {said}")
    return results


def _training_pictures(split: Split) -> list[Picture]:
    return [Picture(s.uri) for s in split.pictures] + [Picture(s.uri, 1) for s in split.held_out]


def _task(
    category: str,
    seed: int,
    split: Split,
    tests: Sequence[Sample],
    index: FeatureIndex,
    config: Config,
    cache_root: str,
) -> AblationTask:
    def entries(samples: Sequence[Sample], variant: int = 0) -> list[str]:
        pictures = [Picture(sample.uri, variant) for sample in samples]
        return [index.entries[p] for p in pictures if p in index.entries]

    readable = [sample for sample in tests if Picture(sample.uri) in index.entries]
    return AblationTask(
        category=category,
        seed=seed,
        config=replace(config, fit=replace(config.fit, seed=seed)),
        cache_root=cache_root,
        backbone_key=index.backbone_key,
        fit_entries=entries(split.fit),
        held_out_entries=entries(split.held_out),
        synthetic_entries=entries(split.held_out, 1),
        test_entries=entries(readable),
        is_defective=[sample.is_defective for sample in readable],
    )


def _run_all(tasks: Sequence[AblationTask], progress: Progress) -> Iterator[list[RowResult]]:
    """Results of every task as they come; as many at once as the cluster holds."""
    run = tasks[0].config.run
    on_gpu = cluster_gpus(run) > 0
    resources = (
        {"num_gpus": run.gpus_per_fit} if on_gpu else {"num_cpus": cpus_of_fit(run, len(tasks))}
    )
    fit = ray.remote(**resources, max_retries=0)(ablate)
    waiting = [fit.remote(task) for task in tasks]
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=_SAID_EVERY_S)
        if not done:
            progress.say(f"{len(waiting)} of {len(tasks)} fits of all rows are not finished")
            continue
        try:
            yield ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, NfbmrError) else error) from None


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


def _name(row: AblationRow) -> str:
    if row.mapper == "none":
        return "flow only"
    blocks = "" if row.residual_blocks is None else f", n = {row.residual_blocks}"
    return f"flow + {row.mapper.upper()}{blocks}"


def ablation_spreads(results: Sequence[RowResult], of: str = "image_auroc") -> list[Spread]:
    """Per row of Table 5: mean over categories for each seed, then over seeds."""
    spreads = []
    for row in range(len(TABLE5)):
        by_seed: dict[int, list[float]] = {}
        for result in results:
            if result.row == row:
                by_seed.setdefault(result.seed, []).append(getattr(result, of))
        spreads.append(Spread.of([float(np.mean(values)) for values in by_seed.values()]))
    return spreads


def ablation_table(results: Sequence[RowResult]) -> str:
    """Table 5 with the paper's numbers beside ours, then every category."""
    chosen = ablation_spreads(results)
    of_mean = ablation_spreads(results, "image_auroc_of_mean")
    rows = [
        (_name(row), str(chosen[i]), str(of_mean[i]), f"{row.image_auroc:.1f}")
        for i, row in enumerate(TABLE5)
    ]
    header = (
        "row of Table 5",
        "image AUROC",
        "with the mean of the map",
        "paper, MVTec AD, %",
    )
    categories = sorted({result.category for result in results})
    per_category = [
        (_name(row), *(_category_spread(results, i, category) for category in categories))
        for i, row in enumerate(TABLE5)
    ]
    return f"{table(rows, header)}\n\n{table(per_category, ('row of Table 5', *categories))}"


def _category_spread(results: Sequence[RowResult], row: int, category: str) -> str:
    values = [r.image_auroc for r in results if r.row == row and r.category == category]
    return str(Spread.of(values))


def ablation_json(results: Sequence[RowResult]) -> Mapping[str, Any]:
    """Plain values for JSON."""
    return {
        "benchmark": "ablation",
        "rows": [
            {**asdict(row), "name": _name(row), "measured": asdict(spread)}
            for row, spread in zip(TABLE5, ablation_spreads(results), strict=True)
        ],
        "results": [asdict(result) for result in results],
    }
