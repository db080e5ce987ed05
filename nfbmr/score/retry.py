"""Scoring the error rows of a finished run once more.

The pictures that failed become a run of their own under ``_retry``; then every file of the data
set that holds some of them is replaced, in one atomic write, by one with the new rows in the old
places. A reader sees either, and both are whole. Cut off anywhere, the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.backbones import check_backbones
from nfbmr.score.pipeline import score_units
from nfbmr.score.plan import Plan, cut_units
from nfbmr.score.plan_files import load_plan, planned_table, save_plan
from nfbmr.score.run import ScoringRequest, ScoringSummary, plan_schema
from nfbmr.score.schema import ERROR
from nfbmr.score.statistics import WorkDone
from nfbmr.score.units import MARKER, finished_units, read_marker, read_unit
from nfbmr.settings import RunSettings

RETRY_FOLDER = "_retry"


def retry_failed(
    request: ScoringRequest, registry: Registry, settings: RunSettings, progress: Progress
) -> ScoringSummary:
    """Score the error rows of a finished run again. Needs a Ray session.

    The models are those of the run, and so are the pictures: one that changed since the run was
    planned stays an error.

    Args:
        request: of the run; only ``output`` and ``weights`` are looked at.
        registry: where the models are.
        settings: resources.
        progress: where it says what it does.

    Raises:
        NfbmrError: there is no finished run, or nothing can be done at all.
    """
    output = storage.absolute_uri(request.output)
    plan, marker = load_plan(output), read_marker(output)
    if plan is None or marker is None:
        raise OutputError(
            f"There is no finished scoring run at {output} whose errors could be tried again: run "
            "the same command without --retry-failed until it ends."
        )
    retried = storage.join(output, RETRY_FOLDER)
    sub_plan = load_plan(retried) or _plan_again(plan, output, retried)
    work = WorkDone()
    if sub_plan is not None:
        work = _score(sub_plan, retried, request, registry, settings, progress)
        _replace_rows(output, _new_rows(sub_plan, retried))
    failed = len(_failed_uris(output))
    storage.remove_tree(retried)
    run = {
        **marker["run"],
        "failed": failed,
        "scored_now": work.pictures,
        "seconds_by_stage": work.seconds,
        "cpu_seconds_by_stage": work.cpu_seconds,
    }
    text = json.dumps({**marker, "failed": failed, "run": run}, indent=1)
    storage.write_atomically(storage.join(output, MARKER), text.encode())
    progress.say(f"{work.pictures} error rows were scored again; {failed} are still errors")
    return ScoringSummary(**run)


def _plan_again(plan: Plan, output: str, retried: str) -> Plan | None:
    """A plan of the failed pictures alone, with the models of the run; None if there are none."""
    failed = _failed_uris(output)
    if not failed:
        return None
    pictures = planned_table(output)
    chosen = pictures.filter(
        pa.compute.is_in(pictures.column("image_uri"), value_set=pa.array(sorted(failed)))
    )
    units = cut_units(chosen.combine_chunks(), max(unit.count for unit in plan.units))
    again = replace(plan, units=units)
    save_plan(again, chosen, retried)
    return again


def _score(
    plan: Plan,
    output: str,
    request: ScoringRequest,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
) -> WorkDone:
    finished = finished_units(output)
    left = [unit for unit in plan.units if unit.name not in finished]
    if not left:
        return WorkDone()
    check_backbones(plan, request.weights)
    schema = plan_schema(plan)
    return score_units(plan, left, output, schema, settings, registry, request.weights, progress)


def _parts(output: str) -> list[str]:
    names = storage.list_names(output)
    return [storage.join(output, name) for name in names if name.startswith("part-")]


def _failed_uris(output: str) -> set[str]:
    uris: set[str] = set()
    for part in _parts(output):
        fs, path = url_to_fs(part)
        wanted = [("status", "==", ERROR)]
        table = pq.read_table(path, filesystem=fs, columns=["image_uri"], filters=wanted)
        uris |= set(table.column("image_uri").to_pylist())
    return uris


def _new_rows(plan: Plan, output: str) -> dict[str, dict[str, Any]]:
    tables = [read_unit(output, unit.name) for unit in plan.units]
    return {row["image_uri"]: row for table in tables for row in table.to_pylist()}


def _replace_rows(output: str, new: Mapping[str, dict[str, Any]]) -> None:
    """Replace rows by name, file by file; row groups and the order of the rows stay."""
    for uri in _parts(output):
        fs, path = url_to_fs(uri)
        with pq.ParquetFile(fs.open(path, "rb")) as old:
            if not any(name in new for name in _names(old)):
                continue
            with (
                storage.open_atomically(uri) as file,
                pq.ParquetWriter(file, old.schema_arrow, compression="zstd") as writer,
            ):
                for group in range(old.num_row_groups):
                    writer.write_table(_replaced(old.read_row_group(group), new))


def _names(file: pq.ParquetFile) -> list[str]:
    names: list[str] = file.read(columns=["image_uri"]).column("image_uri").to_pylist()
    return names


def _replaced(table: pa.Table, new: Mapping[str, dict[str, Any]]) -> pa.Table:
    names = table.column("image_uri").to_pylist()
    if not any(name in new for name in names):
        return table
    rows = [new.get(row["image_uri"], row) for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=table.schema)
