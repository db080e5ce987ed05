"""The pipeline of a scoring run on Ray Data: units in, statistics of committed units out.

Plan → fetch (tasks) → decode, score, commit (actors). Encoded bytes travel from a task to an actor;
pixels stay in the actor's process; nothing but statistics comes back. All batches are units, and a
unit is of one category, so no shuffle groups anything.

What of Ray Data 2.60 is used:

- its streaming execution with back-pressure: fetching pauses while the bytes that wait for actors
  fill Ray Data's share of the object store, so memory does not grow with the archive;
- autoscaling actor pools between ``run.actors_min`` and ``run.actors_max``, with fractions of a
  GPU (``resources.actor_pool``); actors that run two calls at once, so that decoding overlaps
  forward passes.

What is not, and why:

- checkpointing (``ray.data.checkpoint``): it loads the ids of all finished rows into memory first,
  and a unit's file already says that the unit is finished;
- the download expression (``ray.data.expressions.download``): it reads whole files, not ranges of
  an archive; a file that cannot be read is a null without a reason, where we owe a row with one;
- ``write_parquet``: a retried write may leave rows twice, where a unit's file can only be replaced;
- ``max_errored_blocks``: it drops a unit for one bad picture, and may hang when an actor dies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter

import pyarrow as pa
import ray

from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.resources import FETCH_CPUS, actor_pool, cluster_gpus, decode_threads, ray_data_session
from nfbmr.score.decode import Decoder
from nfbmr.score.fetch import Fetcher
from nfbmr.score.plan import Plan, PlannedPicture
from nfbmr.score.planned_units import UNITS_PER_WAVE, PlannedUnit, Units
from nfbmr.score.scorer import Scorer
from nfbmr.score.statistics import WorkDone
from nfbmr.score.store_watch import StoreWatch
from nfbmr.score.witnesses import Witnesses
from nfbmr.settings import IN_TASKS, RunSettings
from nfbmr.watchdog import finished_rows_of


def score_units(
    plan: Plan,
    left: Units,
    output: str,
    schema: pa.Schema,
    settings: RunSettings,
    registry: Registry,
    weights: str | None,
    progress: Progress,
    finished: Collection[str] = (),
    holds_gone: bool = True,
    others: Callable[[], Sequence[PlannedPicture]] = tuple,
) -> WorkDone:
    """Score and commit units.

    Args:
        plan: of the run, saved under the output.
        left: its units that are not committed yet.
        output: of the run.
        schema: of the rows.
        settings: resources.
        registry: where the models are.
        weights: of the backbone, if not where they were at training.
        progress: where it says how far it is.
        finished: names of units that were committed before.
        holds_gone: whether a unit of which every picture is gone is taken for a share that is not
            there, and comes again; not where they were known to be gone.
        others: see ``Witnesses``.

    Returns:
        What was done.

    Raises:
        WorkerError: a worker failed for a reason that is no picture's, or nothing was committed
            for ``run.stall_timeout_s``.
        StoreError: a store refuses everything, does not answer or is full.
    """
    work = WorkDone()
    left = left.one_of_each_category_first()
    witnesses = Witnesses(plan, output, others)
    watch = _watch(plan, left, witnesses, finished)
    bars = progress.on_terminal
    with (
        ray_data_session("scoring", bars),
        progress.counter("scored", left.pictures, drawn=bars) as count,
    ):
        for wave, last_try in _waves(left, watch):
            start = partial(
                _pipeline,
                plan=plan,
                output=output,
                schema=schema,
                settings=settings,
                registry=registry,
                weights=weights,
                last_try=last_try,
                holds_gone=holds_gone,
                witness=witnesses.of(watch.witness) if last_try and watch.witness else (),
            )
            rows = finished_rows_of(
                start,
                {unit.name: unit for unit in wave},
                itemgetter("unit"),
                settings.stall_timeout_s,
                progress.say,
                "unit",
            )
            for row in rows:
                watch.look(row)
                if row["refused"]:
                    continue
                work.add(row)
                count(work.pictures)
    _say_difference(work, progress)
    return work


def _say_difference(work: WorkDone, progress: Progress) -> None:
    """What the fast forward passes changed, and of which actors that is not known."""
    if work.difference is not None:
        progress.say(work.difference.sentence())
    if work.not_compared is not None:
        progress.say(
            "warning: what fast forward passes change is not known of all actors; the scores are "
            f"there. {work.not_compared}"
        )


def _watch(plan: Plan, left: Units, witnesses: Witnesses, finished: Collection[str]) -> StoreWatch:
    return StoreWatch(
        any_read=len(left) < len(plan.units),
        categories=len(left.pictures_by_category()),
        works=witnesses.answers,
        witness=witnesses.known(finished),
        find=witnesses.find,
    )


def _waves(left: Units, watch: StoreWatch) -> Iterator[tuple[Sequence[PlannedUnit], bool]]:
    """All units once, then those that were held back once more, for the last time.

    What Ray Data keeps of its input grows with it: a wave at a time keeps it small.
    """
    for start in range(0, len(left), UNITS_PER_WAVE):
        yield left[start : start + UNITS_PER_WAVE], False
    watch.check_any_read()
    held = left.named(watch.held)
    for start in range(0, len(held), UNITS_PER_WAVE):
        yield held[start : start + UNITS_PER_WAVE], True


def _pipeline(
    units: Sequence[PlannedUnit],
    plan: Plan,
    output: str,
    schema: pa.Schema,
    settings: RunSettings,
    registry: Registry,
    weights: str | None,
    last_try: bool,
    holds_gone: bool,
    witness: Sequence[PlannedPicture],
) -> ray.data.Dataset:
    rows = ray.data.from_arrow([pa.Table.from_pylist([asdict(unit)]) for unit in units])
    fetched = rows.map_batches(
        Fetcher(
            plan.model_errors,
            output,
            plan.run_id,
            settings.store_patience_s,
            last_try,
            witness,
            holds_gone,
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=FETCH_CPUS,
    )
    if settings.decode == IN_TASKS:
        # Beside actors on cores there is no whole core left: a task that asks for one would wait
        # for ever.
        fetched = fetched.map_batches(
            Decoder(plan.models, settings.stall_timeout_s),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1 if cluster_gpus(settings) > 0 else FETCH_CPUS,
        )
    return fetched.map_batches(
        Scorer,
        fn_constructor_args=(
            plan.models,
            output,
            plan.run_id,
            schema,
            settings,
            decode_threads(settings),
            registry.uri,
            weights,
        ),
        batch_size=1,
        batch_format="pyarrow",
        **actor_pool(settings, len(units), decodes=settings.decode != IN_TASKS, calls=2),
    )
