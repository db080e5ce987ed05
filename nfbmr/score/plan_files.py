"""A plan on disk or in an object store.

The pictures lie in Parquet files whose row groups hold whole units, so that a worker reads the
pictures of its unit and the driver reads none of them. There are several files because a worker
reads the whole footer of one before it finds a row group.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nfbmr import __version__, storage
from nfbmr.errors import STORE_ERRORS, OutputError
from nfbmr.model_version import ModelVersion
from nfbmr.plain_columns import plain
from nfbmr.score.plan import PICTURES, Plan, PlannedModel, PlannedPicture
from nfbmr.score.planned_units import UNIT, PlannedUnit, Units
from nfbmr.store_faults import retried

FORMAT = 3
PLAN_FOLDER = "_plan"
_JSON = "plan.json"
_UNITS = "units.parquet"

_GROUPS_PER_FILE = 64
_BLOCK_BYTES = 2**20
LISTING_FOLDER = "listing"
INDEX_FOLDER = "indexes"
_DAMAGE = (KeyError, TypeError, AttributeError, IndexError, *STORE_ERRORS, pa.ArrowException)


def save_plan(plan: Plan, ordered: pa.Table, output: str) -> None:
    """Write the plan; its JSON comes last and says that the plan is whole.

    Where two drivers plan the same run at once, the JSON of the first stays: load the plan again.
    """
    folder = storage.join(output, PLAN_FOLDER)
    sizes = plan.units.pictures_by_row_group()
    start = 0
    files = []
    for first in range(0, len(sizes), _GROUPS_PER_FILE):
        groups = sizes[first : first + _GROUPS_PER_FILE]
        uri = storage.join(folder, _pictures_name(first))
        with (
            storage.open_atomically(uri) as file,
            pq.ParquetWriter(file, PICTURES, compression="zstd") as writer,
        ):
            for size in groups:
                writer.write_table(ordered.slice(start, size), row_group_size=size)
                start += size
        files.append({"name": _pictures_name(first), "bytes": storage.size(uri)})
    with storage.open_atomically(storage.join(folder, _UNITS)) as file:
        pq.write_table(plan.units.table, file, compression="zstd")
    description = {
        "format": FORMAT,
        "nfbmr_version": __version__,
        "run_id": plan.run_id,
        "request": plan.request,
        "models": {name: asdict(model) for name, model in plan.models.items()},
        "model_errors": plan.model_errors,
        "files": files,
    }
    data = json.dumps(description, indent=1).encode()
    storage.write_new(storage.join(folder, _JSON), data)


def _pictures_name(group: int) -> str:
    """The file that holds a row group of the plan."""
    return f"pictures-{group // _GROUPS_PER_FILE:05d}.parquet"


def load_plan(output: str) -> Plan | None:
    """The plan under an output, or None where there is none yet.

    Raises:
        OutputError: it is damaged or of another format.
    """
    folder = storage.join(output, PLAN_FOLDER)
    data = storage.read(storage.join(folder, _JSON))
    if data is None:
        return None
    try:
        description = json.loads(data)
        if description["format"] != FORMAT:
            raise OutputError(
                f"The plan in {folder} has format {description['format']}, this nfbmr "
                f"{__version__} reads {FORMAT}: finish the run with nfbmr "
                f"{description.get('nfbmr_version')}, or choose another --output."
            )
        data = storage.read(storage.join(folder, _UNITS))
        units = plain(pq.read_table(pa.BufferReader(data)))
        plan = Plan(
            run_id=description["run_id"],
            request=description["request"],
            models={n: _model_from_json(m) for n, m in description["models"].items()},
            model_errors=description["model_errors"],
            units=Units(units.cast(UNIT)),
        )
        _check_files(folder, description["files"])
        return plan
    except _DAMAGE as error:
        raise _damaged(output, error) from error


def _damaged(output: str, error: Exception) -> OutputError:
    folder = storage.join(output, PLAN_FOLDER)
    return OutputError(
        f"The plan in {folder} is damaged ({error}): choose another --output, or remove this one "
        "to start again."
    )


def _check_files(folder: str, files: Sequence[Mapping[str, Any]]) -> None:
    """One listing says whether all of the plan's pictures are there.

    Raises:
        ValueError: a file is missing or of another size.
    """
    found = {name: file.size for name, file in storage.list_tree(folder).items()}
    for file in files:
        name, size = file["name"], file["bytes"]
        if found.get(name) != size:
            raise ValueError(f"{name} has {found.get(name)} bytes, expected {size}")


def _open_group(output: str, group: int) -> pq.ParquetFile:
    uri = storage.join(output, PLAN_FOLDER, _pictures_name(group))
    fs, path = storage.file_system(uri)
    return plain(pq.ParquetFile(fs.open(path, "rb", block_size=_BLOCK_BYTES), pre_buffer=False))


def planned_table(output: str, uris: Collection[str] | None = None) -> pa.Table:
    """Pictures of a saved plan, in its order: rows of ``PICTURES``.

    Args:
        output: of the run.
        uris: names of the pictures that are wanted; None for all.
    """
    names = storage.list_names(storage.join(output, PLAN_FOLDER))
    count = sum(name.startswith("pictures-") for name in names)
    wanted = None if uris is None else pa.array(sorted(uris), pa.large_string())
    tables = [PICTURES.empty_table()]
    for number in range(count):
        with _open_group(output, number * _GROUPS_PER_FILE) as file:
            table = file.read()
        if wanted is not None:
            table = table.filter(pc.is_in(table.column("image_uri"), value_set=wanted))
        tables.append(table)
    return pa.concat_tables(tables)


@lru_cache(maxsize=2)
def _row_group(output: str, run_id: str, group: int) -> pa.Table:
    """A row group, kept for the next unit; the run's id keeps runs apart under one output."""
    del run_id

    def read() -> pa.Table:
        with _open_group(output, group) as file:
            return file.read_row_group(group % _GROUPS_PER_FILE)

    try:
        return retried(read).select(PICTURES.names).cast(PICTURES)
    except _DAMAGE as error:
        raise _damaged(output, error) from error


def unit_pictures(output: str, run_id: str, unit: PlannedUnit) -> list[PlannedPicture]:
    """The pictures of one unit, read from the saved plan."""
    rows = _row_group(output, run_id, unit.row_group).slice(unit.start, unit.count)
    return [PlannedPicture(**row) for row in rows.to_pylist()]


def unit_uris(output: str, run_id: str, unit: PlannedUnit) -> list[str]:
    """The names of one unit's pictures, read from the saved plan."""
    rows = _row_group(output, run_id, unit.row_group).slice(unit.start, unit.count)
    uris: list[str] = rows.column("image_uri").to_pylist()
    return uris


def _model_from_json(values: Mapping[str, Any]) -> PlannedModel:
    version = dict(values["version"])
    version["aliases"] = tuple(version["aliases"])
    channels, height, width = values["feature_shape"]
    return PlannedModel(
        ModelVersion(**version),
        values["backbone"],
        values["weights"],
        (channels, height, width),
    )
