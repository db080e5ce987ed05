"""The end of a scoring run: units → merged files → data set → summary → marker."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from nfbmr import __version__, store_folders
from nfbmr.errors import OutputError
from nfbmr.progress import Progress
from nfbmr.score.dataset import finished_marker, read_marker, write_marker
from nfbmr.score.drift import drift_by_category
from nfbmr.score.merge import Merge
from nfbmr.score.merge_tasks import merge_parts
from nfbmr.score.parts import cut_parts
from nfbmr.score.plan import Plan
from nfbmr.score.plan_files import remove_other_plans
from nfbmr.score.publish import (
    is_published,
    merge_folder,
    publish,
    published_files,
    remove_leftovers,
)
from nfbmr.score.schema import score_schema
from nfbmr.score.statistics import WorkDone
from nfbmr.score.summary import ScoringSummary, write_summary
from nfbmr.score.tally import Tally, tally_scores
from nfbmr.settings import RunSettings


def finish(
    plan: Plan,
    output: str,
    schema: pa.Schema,
    settings: RunSettings,
    work: WorkDone,
    started: float,
    progress: Progress,
) -> ScoringSummary:
    """Make the data set of a run whose units are all committed.

    Cut off anywhere, it is done again. Two drivers of one run may do it at once: they make the same
    files, and the slower one takes over what the faster one left.

    Args:
        plan: of the run.
        output: of the run.
        schema: of the rows.
        settings: of files and drift.
        work: what this session did before.
        started: when this session began to work, ``time.monotonic()``.
        progress: where warnings are said.

    Raises:
        OutputError: a unit is gone, or has other rows than the plan says.
    """
    try:
        with progress.busy(f"Merging {len(plan.units)} units into files"):
            names = _publish(plan, output, schema, settings)
        tally = tally_scores(output, names)
        if tally.rows != plan.pictures:
            raise OutputError(
                f"The data set in {output} has {tally.rows} rows, the plan {plan.pictures}: remove "
                "its folder data and run the same command again."
            )
        summary = _summary(plan, output, tally, settings, work, started)
        record_finished(summary, {**lineage(plan), "files": names})
    except (OutputError, OSError):
        # Another driver that finished the run drops what this one still reads and writes.
        if read_marker(output) is None:
            raise
        progress.say(f"{output} was finished by another driver of the same run")
        remove_leftovers(output)
        return ScoringSummary.of_earlier(finished_marker(output)["run"])
    remove_leftovers(output)
    remove_other_plans(plan, output)
    for warning in summary.warnings():
        progress.say(f"warning: {warning}")
    progress.say(f"{summary.pictures} rows ({summary.failed} with an error) are in {output}")
    return summary


def _publish(plan: Plan, output: str, schema: pa.Schema, settings: RunSettings) -> list[str]:
    """Merge the units and publish the files, unless that is done; returns their names."""
    if is_published(output):
        return published_files(output)
    parts = cut_parts(plan, schema, settings.output)
    folder = merge_folder(output)
    try:
        merge = Merge(plan.run_id, output, folder, schema, lineage(plan))
        merge_parts(merge, parts, settings.stall_timeout_s)
        publish(output, folder, [part.name for part in parts])
    except Exception:
        # Half a merge would take the room that the next one needs.
        with suppress(OSError):
            store_folders.remove_tree(folder)
        raise
    return published_files(output)


def record_finished(summary: ScoringSummary, description: dict[str, Any]) -> None:
    """Write a run's summary, then the marker.

    Args:
        summary: of the run.
        description: of the run: its lineage, and the names of its files.
    """
    write_summary(summary)
    marker = {**description, "failed": summary.failed, "run": summary.as_dict()}
    write_marker(summary.output, marker)


def _summary(
    plan: Plan,
    output: str,
    tally: Tally,
    settings: RunSettings,
    work: WorkDone,
    started: float,
) -> ScoringSummary:
    drift = drift_by_category(tally.p_values, settings.drift)
    return ScoringSummary(
        output=output,
        run_id=plan.run_id,
        pictures=plan.pictures,
        failed=tally.failed,
        failed_by_kind=dict(tally.failed_by_kind),
        damaged_sources=dict(tally.damaged_sources),
        models={name: model.version.version for name, model in plan.models.items()},
        drift={name: own.as_dict() for name, own in drift.items()},
        scored_now=work.pictures,
        elapsed_s=time.monotonic() - started,
        fetched_bytes=work.encoded_bytes,
        seconds_by_stage=work.seconds,
        cpu_seconds_by_stage=work.cpu_seconds,
        forward=asdict(work.difference) if work.difference else None,
    )


def recounted(
    output: str, marker: dict[str, Any], settings: RunSettings, work: WorkDone, started: float
) -> ScoringSummary:
    """The summary of a finished run some of whose rows were scored again since its marker.

    Args:
        output: of the run.
        marker: of the run.
        settings: of drift.
        work: what this session did before.
        started: when this session began to work, ``time.monotonic()``.
    """
    tally = tally_scores(output, marker["files"])
    drift = drift_by_category(tally.p_values, settings.drift)
    changed = {
        "failed": tally.failed,
        "failed_by_kind": dict(tally.failed_by_kind),
        "drift": {name: own.as_dict() for name, own in drift.items()},
        "scored_now": work.pictures,
        "elapsed_s": time.monotonic() - started,
        "fetched_bytes": work.encoded_bytes,
        "seconds_by_stage": work.seconds,
        "cpu_seconds_by_stage": work.cpu_seconds,
    }
    return ScoringSummary(**{**marker["run"], **changed})


def plan_schema(plan: Plan, map_type: str) -> pa.Schema:
    """The columns of a plan's rows.

    Args:
        plan: of the run.
        map_type: ``run.output.map_type``.
    """
    shapes = [model.feature_shape for model in plan.models.values()]
    return score_schema({height * width for _, height, width in shapes}, map_type)


def lineage(plan: Plan) -> dict[str, Any]:
    """What a run's files say about where they come from."""
    return {
        "nfbmr_version": __version__,
        "run_id": plan.run_id,
        "pictures": plan.pictures,
        "request": plan.request,
        "models": {name: model.version.version for name, model in plan.models.items()},
    }
