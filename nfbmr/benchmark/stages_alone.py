"""What the stages of the scoring job cost by themselves: one thread, one stage after the other.

It is the job's own code for its own units, without Ray: nothing overlaps, nothing is contended.
"""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from nfbmr import storage
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.fetch import Fetcher
from nfbmr.score.finish import plan_schema
from nfbmr.score.planned_units import PlannedUnit
from nfbmr.score.run import ScoringRequest, prepare
from nfbmr.score.scorer import Scorer
from nfbmr.score.statistics import WorkDone
from nfbmr.settings import RunSettings


def stages_alone(
    source: str,
    output: str,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    weights: str | None = None,
) -> WorkDone:
    """Fetch, decode, score and commit every unit of a plan in this thread. Needs a Ray session.

    The first unit is done twice and counted once: what is loaded or prepared for it is no cost of
    a picture.

    Args:
        source: an archive.
        output: a folder or prefix that is new.
        registry: where the models are.
        settings: resources; a forward pass has ``cpus_per_actor`` threads.
        progress: where it says how far it is.
        weights: where the backbone's weights are, if not where they were at training.
    """
    output = storage.absolute_uri(output)
    request = ScoringRequest((source,), output, weights=weights)
    plan = prepare(request, output, registry, settings, progress)
    fetcher = Fetcher(plan.model_errors, output, plan.run_id, settings.store_patience_s, True)
    scorer = Scorer(
        plan.models,
        output,
        plan.run_id,
        plan_schema(plan, settings.output.map_type),
        settings,
        1,
        registry.uri,
        weights,
    )

    def finish(unit: PlannedUnit) -> dict[str, object]:
        fetched = fetcher(pa.Table.from_pylist([asdict(unit)]))
        row: dict[str, object] = scorer(fetched).to_pylist()[0]
        return row

    work = WorkDone()
    finish(plan.units[0])
    with progress.counter("stages alone", plan.pictures) as count:
        for unit in plan.units:
            work.add(finish(unit))
            count(work.pictures)
    return work
