"""A plan on disk or in an object store.

The pictures lie in one Parquet file whose row groups hold whole units, so that a worker reads the
pictures of its unit and the driver reads none of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import __version__, storage
from nfbmr.errors import STORE_ERRORS, OutputError
from nfbmr.model_version import ModelVersion
from nfbmr.plain_columns import plain
from nfbmr.score.plan import PICTURES, Plan, PlannedModel, PlannedPicture, PlannedUnit
from nfbmr.store_faults import retried

FORMAT = 2
PLAN_FOLDER = "_plan"
_JSON = "plan.json"
_PARQUET = "pictures.parquet"
_UNITS = "units.parquet"

_DAMAGE = (KeyError, TypeError, AttributeError, IndexError, *STORE_ERRORS, pa.ArrowException)

_UNIT = pa.schema(
    [
        ("name", pa.string()),
        ("category", pa.string()),
        ("row_group", pa.int64()),
        ("start", pa.int64()),
        ("count", pa.int64()),
    ]
)


def save_plan(plan: Plan, ordered: pa.Table, output: str) -> None:
    """Write the plan; its JSON comes last and says that the plan is whole.

    Where two drivers plan the same run at once, the JSON of the first stays: load the plan again.
    """
    folder = storage.join(output, PLAN_FOLDER)
    with (
        storage.open_atomically(storage.join(folder, _PARQUET)) as file,
        pq.ParquetWriter(file, PICTURES, compression="zstd") as writer,
    ):
        start = 0
        for size in _group_sizes(plan.units):
            writer.write_table(ordered.slice(start, size), row_group_size=size)
            start += size
    rows = pa.Table.from_pylist([asdict(unit) for unit in plan.units], schema=_UNIT)
    with storage.open_atomically(storage.join(folder, _UNITS)) as file:
        pq.write_table(rows, file, compression="zstd")
    description = {
        "format": FORMAT,
        "nfbmr_version": __version__,
        "run_id": plan.run_id,
        "request": plan.request,
        "models": {name: asdict(model) for name, model in plan.models.items()},
        "model_errors": plan.model_errors,
    }
    data = json.dumps(description, indent=1).encode()
    storage.write_new(storage.join(folder, _JSON), data)


def _group_sizes(units: Sequence[PlannedUnit]) -> list[int]:
    sizes: dict[int, int] = {}
    for unit in units:
        sizes[unit.row_group] = sizes.get(unit.row_group, 0) + unit.count
    return list(sizes.values())


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
            units=[PlannedUnit(**row) for row in units.to_pylist()],
        )
        with _open_pictures(output) as file:
            found = file.metadata.num_rows
        if found != plan.pictures:
            raise ValueError(f"{found} pictures, expected {plan.pictures}")
        return plan
    except _DAMAGE as error:
        raise _damaged(output, error) from error


def _damaged(output: str, error: Exception) -> OutputError:
    folder = storage.join(output, PLAN_FOLDER)
    return OutputError(
        f"The plan in {folder} is damaged ({error}): choose another --output, or remove this one "
        "to start again."
    )


def _open_pictures(output: str) -> pq.ParquetFile:
    fs, path = storage.file_system(storage.join(output, PLAN_FOLDER, _PARQUET))
    return plain(pq.ParquetFile(fs.open(path, "rb")))


def planned_table(output: str) -> pa.Table:
    """All pictures of a saved plan, in its order: rows of ``PICTURES``."""
    with _open_pictures(output) as file:
        return file.read()


@lru_cache(maxsize=2)
def _row_group(output: str, run_id: str, group: int) -> pa.Table:
    """A row group, kept for the next unit; the run's id keeps runs apart under one output."""
    del run_id

    def read() -> pa.Table:
        with _open_pictures(output) as file:
            return file.read_row_group(group)

    try:
        return retried(read)
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
