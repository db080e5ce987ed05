"""From finished units to the finished data set: few, large files and a marker."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.score.plan import Plan, PlannedUnit
from nfbmr.score.plan_files import unit_uris
from nfbmr.score.schema import ERROR
from nfbmr.score.units import MARKER, UNITS_FOLDER, read_unit

MAX_ROWS_PER_FILE = 1_000_000
MAX_BYTES_PER_FILE = 512 * 2**20
_READERS = 8


def part_name(number: int) -> str:
    """The name of a file of the finished data set."""
    return f"part-{number:05d}.parquet"


def merge_units(plan: Plan, output: str, schema: pa.Schema, lineage: Mapping[str, Any]) -> int:
    """Merge the finished units of a plan into few large files, in the plan's order.

    Every step can be cut off and done again: the files are written under fixed names, and neither
    the marker is set nor the units are removed here.

    Args:
        plan: of the run.
        output: of the run.
        schema: of the rows.
        lineage: goes into the metadata of every file.

    Returns:
        How many rows are errors.

    Raises:
        OutputError: a unit is gone, or has other rows than the plan says.
    """
    schema = schema.with_metadata({"nfbmr": json.dumps(lineage)})
    tables = _checked(plan, output)
    failed = 0
    names: set[str] = set()
    table = next(tables, None)
    while table is not None:
        names.add(part_name(len(names)))
        uri = storage.join(output, part_name(len(names) - 1))
        with storage.open_atomically(uri) as file:
            errors, table = _write_part(file, schema, table, tables)
            failed += errors
    _remove_others(output, names)
    return failed


def _write_part(
    file: BinaryIO, schema: pa.Schema, table: pa.Table, tables: Iterator[pa.Table]
) -> tuple[int, pa.Table | None]:
    """Write one file of whole units; returns its error rows, and the table that comes next."""
    failed = rows = 0
    following: pa.Table | None = table
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while following is not None and rows < MAX_ROWS_PER_FILE:
            if file.tell() >= MAX_BYTES_PER_FILE:
                break
            writer.write_table(following.cast(schema))
            failed += following.column("status").to_pylist().count(ERROR)
            rows += len(following)
            following = next(tables, None)
    return failed, following


def _remove_others(output: str, names: set[str]) -> None:
    """Files of a merge that was cut off and had other limits."""
    for name in storage.list_names(output):
        if name.startswith("part-") and name not in names:
            storage.remove_tree(storage.join(output, name))


def _checked(plan: Plan, output: str) -> Iterator[pa.Table]:
    """The tables of all units, each with the rows of the plan; several are read ahead."""
    with ThreadPoolExecutor(_READERS) as pool:
        for unit, table in _ahead(pool, plan.units, output):
            uris = table.column("image_uri").to_pylist()
            if uris != unit_uris(output, plan.run_id, unit):
                raise OutputError(
                    f"Unit {unit.name} in {output} does not hold the pictures of the plan: remove "
                    "its file and run the same command again."
                )
            yield table


def _ahead(
    pool: ThreadPoolExecutor, units: Iterable[PlannedUnit], output: str
) -> Iterator[tuple[PlannedUnit, pa.Table]]:
    waiting: deque[tuple[PlannedUnit, Future[pa.Table]]] = deque()
    for unit in units:
        waiting.append((unit, pool.submit(read_unit, output, unit.name)))
        if len(waiting) > 2 * _READERS:
            first, future = waiting.popleft()
            yield first, future.result()
    for unit, future in waiting:
        yield unit, future.result()


def set_marker(output: str, summary: Mapping[str, Any]) -> None:
    """Say that the data set is whole, then drop the units.

    Args:
        output: of the run.
        summary: written into the marker.
    """
    data = json.dumps(summary, indent=1).encode()
    storage.write_atomically(storage.join(output, MARKER), data)
    storage.remove_tree(storage.join(output, UNITS_FOLDER))
