"""The paper's Table 5 on any labelled data: the flow with each mapper, and alone.

For every category and seed the flow is fitted once and shared by all five rows, as the paper does
it: the mapper is fitted on a frozen flow. Every category and seed is a task of its own on the
cluster; its rows are kept as soon as they are there, and one that fails stops no other. Each row
picks its aggregate without labels, as a training run does; test labels are looked at after the last
epoch only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import ray

from nfbmr import storage
from nfbmr.benchmark.ablation_kept import KeptRows
from nfbmr.benchmark.ablation_task import AblationTask, RowResult, ablate, row_name
from nfbmr.benchmark.accuracy import AccuracyRequest, labelled_tests
from nfbmr.config import Config
from nfbmr.data.layouts import discover_layout
from nfbmr.data.sample import Sample
from nfbmr.errors import NfbmrError
from nfbmr.progress import Progress
from nfbmr.published import TABLE5
from nfbmr.resources import cluster_gpus, first_cause
from nfbmr.train.campaign import CampaignPaths
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.features import compute_features
from nfbmr.train.fit_capacity import cpus_of_fit
from nfbmr.train.night import tolerated
from nfbmr.train.split import Split, split_normals

_SAID_EVERY_S = 30.0
_RETRIES = 2
"""Of a task whose worker or node died; an error that it raised itself would come again."""

_FOLDER = "ablation"


@dataclass(frozen=True)
class FailedFit:
    """A category and seed without rows, and the sentence that says why."""

    category: str
    seed: int
    error: str


@dataclass(frozen=True)
class Ablation:
    """What came of all categories and seeds.

    Attributes:
        layout: of the data.
        results: the rows that exist, by category, seed and row.
        failures: of the others, by category and seed.
        earlier: how many categories and seeds an earlier run had measured.
    """

    layout: str
    results: tuple[RowResult, ...]
    failures: tuple[FailedFit, ...]
    earlier: int


def measure_ablation(request: AccuracyRequest, progress: Progress) -> Ablation:
    """Fit and test all rows that the work folder does not have yet. Needs a Ray session.

    Raises:
        DataError: there are no labelled test pictures of both kinds, or too few normals.
    """
    layout, samples = discover_layout(request.data, request.layout, request.categories)
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
    kept = KeptRows(storage.join(str(request.work_dir), _FOLDER))
    return run_tasks(tasks, layout, kept, progress)


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


def run_tasks(
    tasks: Sequence[AblationTask],
    layout: str,
    kept: KeptRows,
    progress: Progress,
    measure: Callable[[AblationTask], list[RowResult]] = ablate,
) -> Ablation:
    """Measure every task that was not measured before; each one's rows are kept at once.

    Args:
        tasks: categories and seeds.
        layout: of the data.
        kept: rows of earlier runs; those of this one are added.
        progress: is told what comes.
        measure: gives a task's rows, on a worker.
    """
    found = {i: rows for i, task in enumerate(tasks) if (rows := kept.find(task)) is not None}
    if found:
        progress.say(
            f"{len(found)} of {len(tasks)} fits of all rows are taken from an earlier run "
            f"({kept.folder})"
        )
    results = [row for rows in found.values() for row in rows]
    failures: list[FailedFit] = []
    left = [task for i, task in enumerate(tasks) if i not in found]
    for task, done in _run_all(left, measure, progress):
        if isinstance(done, FailedFit):
            failures.append(done)
            progress.say(f"{task.category}, seed {task.seed}: failed; {done.error}")
            continue
        results += done
        with tolerated(progress, f"The rows of {task.category}, seed {task.seed}, are not kept"):
            kept.keep(task, done)
        said = ", ".join(f"{row_name(TABLE5[r.row])} {r.image_auroc:.4f}" for r in done)
        progress.say(f"{task.category}, seed {task.seed}: {said}")
    results.sort(key=lambda row: (row.category, row.seed, row.row))
    failures.sort(key=lambda failure: (failure.category, failure.seed))
    return Ablation(layout, tuple(results), tuple(failures), len(found))


def _run_all(
    tasks: Sequence[AblationTask],
    measure: Callable[[AblationTask], list[RowResult]],
    progress: Progress,
) -> Iterator[tuple[AblationTask, list[RowResult] | FailedFit]]:
    """What comes of every task, as it comes; as many at once as the cluster holds."""
    if not tasks:
        return
    fit = ray.remote(**_resources(tasks), max_retries=_RETRIES)(measure)
    running = {fit.remote(task): task for task in tasks}
    while running:
        done, _ = ray.wait(list(running), num_returns=1, timeout=_SAID_EVERY_S)
        if not done:
            progress.say(f"{len(running)} of {len(tasks)} fits of all rows are not finished")
            continue
        task = running.pop(done[0])
        try:
            yield task, ray.get(done[0])
        except ray.exceptions.RayError as error:
            yield task, FailedFit(task.category, task.seed, _sentence(task, error))


def _resources(tasks: Sequence[AblationTask]) -> Mapping[str, float]:
    run = tasks[0].config.run
    if cluster_gpus(run) > 0:
        return {"num_gpus": run.gpus_per_fit}
    return {"num_cpus": cpus_of_fit(run, len(tasks))}


def _sentence(task: AblationTask, error: ray.exceptions.RayError) -> str:
    """Why a task has no rows."""
    what = f"category {task.category!r}, seed {task.seed},"
    if not isinstance(error, ray.exceptions.RayTaskError):
        times = _RETRIES + 1
        return f"The worker of {what} was lost, {times} times in all: {first_cause(error)}"
    if isinstance(error.cause, NfbmrError):
        return str(error.cause)
    return f"The fits of {what} failed: {first_cause(error)}"
