"""From finished units to few, large files, in a folder that no reader looks into.

One process writes a file: units are read ahead by several threads, and no more than a row group of
rows is held in memory. ``merge_tasks`` shares the files out. A merge that is cut off is done again
from the start; the units stay until the data set is published.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.score.parts import CATEGORY, Part
from nfbmr.score.plan_files import unit_uris
from nfbmr.score.planned_units import PlannedUnit
from nfbmr.score.schema import cast_rows
from nfbmr.score.spark_schema import SPARK_KEY, spark_schema
from nfbmr.score.units import read_unit

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 64 * 2**20
_READERS = 16


@dataclass(frozen=True)
class Merge:
    """What all files of a finished data set are made from.

    Attributes:
        run_id: of the run.
        output: of the run, where its units are.
        folder: to write to, this driver's own.
        schema: of the rows.
        lineage: goes into the metadata of every file.
    """

    run_id: str
    output: str
    folder: str
    schema: pa.Schema
    lineage: Mapping[str, Any]


def merge_units(merge: Merge, parts: Sequence[Part]) -> None:
    """Write files of the finished data set, in the plan's order, in this process.

    Args:
        merge: of the run.
        parts: which units go into which file.

    Raises:
        OutputError: a unit is gone, or has other rows than the plan says.
    """
    with ThreadPoolExecutor(_READERS, thread_name_prefix="nfbmr-merge") as pool:
        units = [unit for part in parts for unit in part.units]
        tables = _checked(pool, units, merge)
        for part in parts:
            own = (next(tables) for _ in part.units)
            _write_part(storage.join(merge.folder, part.name), own, _file_schema(part, merge))


def _file_schema(part: Part, merge: Merge) -> pa.Schema:
    """The schema of one file; a column that its folder's name holds is not in it."""
    schema = merge.schema
    if part.name.startswith(f"{CATEGORY}="):
        schema = schema.remove(schema.get_field_index(CATEGORY))
    metadata = {"nfbmr": json.dumps(merge.lineage), SPARK_KEY: spark_schema(schema)}
    return schema.with_metadata(metadata)


def _write_part(uri: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    with (
        storage.open_atomically(uri) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in _row_groups(tables):
            writer.write_table(group.select(schema.names).cast(schema), row_group_size=len(group))


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = size_bytes = 0
    for table in tables:
        held.append(table)
        rows, size_bytes = rows + len(table), size_bytes + table.nbytes
        if rows >= ROW_GROUP_ROWS or size_bytes >= ROW_GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _checked(
    pool: ThreadPoolExecutor, units: Iterable[PlannedUnit], merge: Merge
) -> Iterator[pa.Table]:
    """The tables of units, in order, each with the rows of the plan; several are read ahead."""
    for unit, table in _ahead(pool, units, merge.output):
        if table.column("image_uri").to_pylist() != unit_uris(merge.output, merge.run_id, unit):
            raise OutputError(
                f"Unit {unit.name} in {merge.output} does not hold the pictures of the plan: "
                "remove its file and run the same command again."
            )
        # Sessions of the run may have been told other types of maps.
        yield cast_rows(table, merge.schema)


def _ahead(
    pool: ThreadPoolExecutor, units: Iterable[PlannedUnit], output: str
) -> Iterator[tuple[PlannedUnit, pa.Table]]:
    waiting: deque[tuple[PlannedUnit, Future[pa.Table]]] = deque()
    try:
        for unit in units:
            waiting.append((unit, pool.submit(read_unit, output, unit.name)))
            if len(waiting) > 2 * _READERS:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
