"""The pipeline of a scoring run on Ray Data: units in, statistics of committed units out.

Ray's own checkpointing (``ray.data.checkpoint``) is not used: it loads the ids of all finished rows
into memory first, and a unit's file already says that the unit is finished. ``write_parquet`` is
not used either: a retried write may leave rows twice, where a unit's file can only be replaced.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray

from nfbmr.errors import WorkerError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.resources import actor_pool, ray_data_session
from nfbmr.score.plan import Plan, PlannedUnit
from nfbmr.score.stages import Decoder, Scorer
from nfbmr.settings import RunSettings

_UNITS_PER_WAVE = 16_384
STAGES = ("fetch_s", "decode_s", "forward_s", "commit_s")


def score_units(
    plan: Plan,
    left: Sequence[PlannedUnit],
    output: str,
    schema: pa.Schema,
    settings: RunSettings,
    registry: Registry,
    weights: str | None,
    progress: Progress,
) -> tuple[dict[str, float], int]:
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

    Returns:
        Worker seconds by stage, and the number of pictures.

    Raises:
        WorkerError: a worker failed for a reason that is no picture's, or nothing was committed
            for ``run.stall_timeout_s``.
    """
    seconds: Counter[str] = Counter()
    done = 0
    total = sum(unit.count for unit in left)
    with ray_data_session("scoring"), progress.counter("scored", total) as count:
        # What Ray Data keeps of its input grows with it: a wave at a time keeps it small.
        for start in range(0, len(left), _UNITS_PER_WAVE):
            wave = left[start : start + _UNITS_PER_WAVE]
            rows = _pipeline(plan, wave, output, schema, settings, registry, weights).iter_rows()
            for row in watched(rows, settings.stall_timeout_s):
                done += row["pictures"]
                for stage in STAGES:
                    seconds[stage] += row[stage]
                count(done)
    return dict(seconds), done


def _pipeline(
    plan: Plan,
    units: Sequence[PlannedUnit],
    output: str,
    schema: pa.Schema,
    settings: RunSettings,
    registry: Registry,
    weights: str | None,
) -> ray.data.Dataset:
    rows = ray.data.from_arrow([pa.Table.from_pylist([asdict(unit)]) for unit in units])
    decoded = rows.map_batches(
        Decoder(plan.models, plan.model_errors, output, plan.run_id),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.25,
    )
    return decoded.map_batches(
        Scorer,
        fn_constructor_args=(
            plan.models,
            output,
            plan.run_id,
            schema,
            settings,
            registry.uri,
            weights,
        ),
        batch_size=1,
        batch_format="pyarrow",
        **actor_pool(settings, len(units)),
    )


def watched(rows: Iterator[dict[str, Any]], timeout_s: float) -> Iterator[dict[str, Any]]:
    """The rows, as long as they keep coming.

    Raises:
        WorkerError: none came for so long; what was committed stays.
    """
    arrived: queue.Queue[tuple[str, Any]] = queue.Queue()

    def read() -> None:
        try:
            for row in rows:
                arrived.put(("row", row))
            arrived.put(("end", None))
        except BaseException as error:  # handed to the thread that waits
            arrived.put(("error", error))

    threading.Thread(target=read, name="nfbmr-rows", daemon=True).start()
    while True:
        try:
            kind, value = arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise WorkerError(
                f"No unit was finished for {timeout_s:g} s (run.stall_timeout_s): the run has "
                "stalled. What was finished stays; look at the cluster's nodes, then run the same "
                "command again."
            ) from None
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value
