"""Scoring the error rows of a finished run once more.

The pictures that failed become a run of their own under ``_retry``; then every file of the data
set that holds some of them is replaced, in one atomic write, by one with the new rows in the old
places. A reader sees either, and both are whole. Cut off anywhere, the same command goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nfbmr import storage, store_folders
from nfbmr.errors import OutputError
from nfbmr.output_place import check_place
from nfbmr.plain_columns import plain
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.backbones import check_backbones
from nfbmr.score.dataset import (
    RETRY_FOLDER,
    data_uri,
    files_dataset,
    finished_marker,
    read_marker,
)
from nfbmr.score.finish import plan_schema, record_finished, recounted
from nfbmr.score.pipeline import score_units
from nfbmr.score.plan import Plan, PlannedPicture
from nfbmr.score.plan_files import (
    PLAN_FOLDER,
    PLAN_JSON,
    load_plan,
    planned_table,
    save_plan,
    unit_uris,
)
from nfbmr.score.planned_units import cut_units
from nfbmr.score.run import ScoringRequest
from nfbmr.score.schema import ERROR, cast_rows
from nfbmr.score.statistics import WorkDone
from nfbmr.score.summary import ScoringSummary
from nfbmr.score.units import finished_units, read_unit
from nfbmr.settings import RunSettings
from nfbmr.store_faults import store_sentences

_FILES_ASKED = 4
_GROUPS_ASKED = 4
"""Row groups of a file, of each of which one picture tells whether the store works."""


@store_sentences("Scoring the error rows again")
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
    check_place(request.output)
    output = storage.absolute_uri(request.output)
    plan, marker = load_plan(output), read_marker(output)
    if plan is None or marker is None:
        raise OutputError(
            f"There is no finished scoring run at {output} whose errors could be tried again: run "
            "the same command without --retry-failed until it ends."
        )
    marker, started = finished_marker(output), time.monotonic()
    names: list[str] = marker["files"]
    retried = storage.join(output, RETRY_FOLDER)
    sub_plan = load_plan(retried)
    if sub_plan is not None and not sub_plan.units.without(finished_units(retried)):
        # All of it was scored by a command that was cut off: what is an error now is tried anew.
        _replace(sub_plan, retried, output, names)
        sub_plan = None
    work = WorkDone()
    sub_plan = sub_plan or _plan_again(plan, output, names, retried)
    if sub_plan is not None:
        others = partial(pictures_read_before, plan, output, names)
        work = _score(sub_plan, retried, request, registry, settings, progress, others)
        _replace(sub_plan, retried, output, names)
    summary = recounted(output, marker, settings, work, started)
    record_finished(summary, marker)
    _tidy(output, retried)
    for warning in summary.warnings():
        progress.say(f"warning: {warning}")
    progress.say(f"{work.pictures} error rows were scored again; {summary.failed} are still errors")
    return summary


def _plan_again(plan: Plan, output: str, names: list[str], retried: str) -> Plan | None:
    """A plan of the failed pictures alone, with the models of the run; None if there are none."""
    _tidy(output, retried)
    errors = ds.field("status") == ERROR
    failed = files_dataset(output, names).to_table(columns=["image_uri"], filter=errors)
    if len(failed) == 0:
        return None
    chosen = planned_table(plan, output, failed.column("image_uri").to_pylist())
    units = cut_units(chosen, max(unit.count for unit in plan.units))
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
    others: Callable[[], Sequence[PlannedPicture]],
) -> WorkDone:
    finished = finished_units(output)
    left = plan.units.without(finished)
    if not left:
        return WorkDone()
    check_backbones(plan, request.weights, settings.forward)
    schema = plan_schema(plan, settings.output.map_type)
    return score_units(
        plan,
        left,
        output,
        schema,
        settings,
        registry,
        request.weights,
        progress,
        finished,
        holds_gone=False,
        others=others,
    )


def pictures_read_before(plan: Plan, output: str, names: Sequence[str]) -> list[PlannedPicture]:
    """Some pictures that a finished run could read, drawn from all over its data set.

    All that is scored again may still be refused: these tell whether the store gives others.

    Args:
        plan: of the run.
        output: of the run.
        names: of its files below the data folder.
    """
    uris: list[str] = []
    for name in random.sample(names, min(_FILES_ASKED, len(names))):
        fs, path = storage.file_system(storage.join(data_uri(output), name))
        with fs.open(path, "rb") as opened, plain(pq.ParquetFile(opened)) as file:
            groups = range(file.num_row_groups)
            for group in random.sample(groups, min(_GROUPS_ASKED, len(groups))):
                rows = file.read_row_group(group, columns=["image_uri", "content_hash"])
                read = rows.filter(pc.is_valid(rows.column("content_hash"))).column("image_uri")
                if len(read):
                    uris.append(read[random.randrange(len(read))].as_py())
    chosen = planned_table(plan, output, uris).to_pylist()
    return [PlannedPicture(**row) for row in chosen]


def _tidy(output: str, retried: str) -> None:
    """Drop a retry that is over, its plan first: a half of it must not be gone on with.

    And what a retry that was killed while it replaced a file has left beside that.
    """
    store_folders.remove_tree(storage.join(retried, PLAN_FOLDER, PLAN_JSON))
    store_folders.remove_tree(retried)
    names = store_folders.list_tree(data_uri(output))
    partial = [name for name in names if storage.is_partial(name.rpartition("/")[2])]
    store_folders.remove_files(data_uri(output), partial)


def _replace(plan: Plan, retried: str, output: str, names: Sequence[str]) -> None:
    """Put the rows of a retry whose units are all finished in the places of the old ones."""
    uris: list[pa.Array] = []
    numbers: list[pa.Array] = []
    for number, unit in enumerate(plan.units):
        own = unit_uris(retried, plan.run_id, unit)
        uris.append(pa.array(own, pa.large_string()))
        numbers.append(pa.array([number] * len(own), pa.int64()))
    place = pa.table(
        {
            "image_uri": pa.chunked_array(uris, pa.large_string()),
            "unit": pa.chunked_array(numbers, pa.int64()),
        }
    )

    def rows(wanted: pa.ChunkedArray) -> pa.Table | None:
        """New rows of some of these pictures: no more units than have them are in memory."""
        held = pc.is_in(place.column("image_uri"), value_set=wanted.cast(pa.large_string()))
        chosen = place.filter(held).column("unit").unique().to_pylist()
        if not chosen:
            return None
        tables = [_unit_rows(plan, retried, number) for number in chosen]
        # Sessions may have been told other types of maps; the file's is known to the caller.
        maps = [table.schema.field("anomaly_map").type.value_type for table in tables]
        widest = tables[next((i for i, kind in enumerate(maps) if kind == pa.float32()), 0)].schema
        return pa.concat_tables([cast_rows(table, widest) for table in tables])

    replace_rows(output, names, rows)


def _unit_rows(plan: Plan, retried: str, number: int) -> pa.Table:
    unit = plan.units[number]
    table = read_unit(retried, unit.name)
    if table.column("image_uri").to_pylist() != unit_uris(retried, plan.run_id, unit):
        raise OutputError(
            f"Unit {unit.name} in {retried} does not hold the pictures that were to be tried "
            "again: remove its file and run the same command again."
        )
    return table


def replace_rows(
    output: str, names: Sequence[str], rows: Callable[[pa.ChunkedArray], pa.Table | None]
) -> None:
    """Replace rows by the pictures' names, file by file; row groups and order stay.

    Args:
        output: of the finished run.
        names: of its files below the data folder.
        rows: the new rows of some pictures, with all columns, and perhaps of others beside them;
            None where there are none.
    """
    for name in names:
        uri = storage.join(data_uri(output), name)
        fs, path = storage.file_system(uri)
        with fs.open(path, "rb") as opened, plain(pq.ParquetFile(opened)) as old:
            new = rows(old.read(columns=["image_uri"]).column("image_uri"))
            if new is None:
                continue
            own = cast_rows(new, old.schema_arrow)
            with (
                storage.open_atomically(uri) as file,
                pq.ParquetWriter(file, old.schema_arrow, compression="zstd") as writer,
            ):
                for group in range(old.num_row_groups):
                    table = _replaced(old.read_row_group(group), own)
                    writer.write_table(table, row_group_size=len(table))


def _replaced(table: pa.Table, new: pa.Table) -> pa.Table:
    """The rows of a table; those that are in ``new`` come from there."""
    found = pc.index_in(table.column("image_uri"), value_set=new.column("image_uri"))
    own = pa.array(range(len(table)), pa.int64())
    places = pc.coalesce(pc.add(found.cast(pa.int64()), len(table)), own)
    return pa.concat_tables([table, new]).take(places)
