"""A plan on disk or in an object store.

The pictures lie in Parquet files whose row groups hold whole units, so that a worker reads the
pictures of its unit and the driver reads none of them. There are several files because a worker
reads the whole footer of one before it finds a row group.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nfbmr import __version__, storage, store_folders
from nfbmr.errors import STORE_ERRORS, OutputError
from nfbmr.model_version import ModelVersion
from nfbmr.plain_columns import plain
from nfbmr.score.plan import PICTURES, Plan, PlannedModel, PlannedPicture
from nfbmr.score.planned_units import (
    UNIT,
    PlannedUnit,
    Units,
    cut_units,
    sorted_by_category,
    unit_name,
)
from nfbmr.store_faults import is_stores, retried

FORMAT = 4
PLAN_FOLDER = "_plan"
PLAN_JSON = "plan.json"

_GROUPS_PER_FILE = 64
_BLOCK_BYTES = 2**20
LISTING_FOLDER = "listing"
INDEX_FOLDER = "indexes"
_DAMAGE = (KeyError, TypeError, AttributeError, IndexError, *STORE_ERRORS, pa.ArrowException)


class PlanWriter:
    """Writes a plan, some pictures after the others: no more are in memory than are given at once.

    Where two drivers plan the same run at once, each writes files of its own, and the JSON of the
    first stays: load the plan again, and ``discard`` the other.

    Args:
        output: of the run.
        run_id: of the run.
    """

    def __init__(self, output: str, run_id: str) -> None:
        self.folder = storage.join(output, PLAN_FOLDER)
        self.run_id = run_id
        self._files: list[dict[str, Any]] = []
        self._units: list[pa.Table] = []

    def add(self, pictures: pa.Table, unit_size: int) -> None:
        """Cut pictures into units and write them.

        Args:
            pictures: rows of ``PICTURES``, in the order in which each category's are wanted.
            unit_size: pictures per unit at most.
        """
        if len(pictures):
            ordered = sorted_by_category(pictures)
            self.write(ordered, cut_units(ordered, unit_size))

    def write(self, ordered: pa.Table, units: Units) -> None:
        """Write pictures that are cut already.

        Args:
            ordered: rows of ``PICTURES``, sorted by category.
            units: of them all, with row groups from 0.
        """
        start, sizes = 0, units.pictures_by_row_group()
        first_group = len(self._files) * _GROUPS_PER_FILE
        for first in range(0, len(sizes), _GROUPS_PER_FILE):
            groups = sizes[first : first + _GROUPS_PER_FILE]
            self._write_groups(ordered.slice(start, sum(groups)), groups)
            start += sum(groups)
        self._units.append(units.moved(first_group).table)

    def _write_groups(self, pictures: pa.Table, sizes: Sequence[int]) -> None:
        name = _pictures_name(self.run_id, len(self._files) * _GROUPS_PER_FILE)
        uri = storage.join(self.folder, name)
        start = 0
        with (
            storage.open_atomically(uri) as file,
            pq.ParquetWriter(file, PICTURES, compression="zstd") as writer,
        ):
            for size in sizes:
                writer.write_table(pictures.slice(start, size), row_group_size=size)
                start += size
        self._files.append({"name": name, "bytes": storage.size(uri)})

    def units(self) -> Units:
        """All units so far, sorted by category."""
        return Units(pa.concat_tables([UNIT.empty_table(), *self._units])).by_category()

    def finish(self, plan: Plan) -> None:
        """Write the rest; the JSON comes last and says that the plan is whole."""
        uri = storage.join(self.folder, _units_name(self.run_id))
        with storage.open_atomically(uri) as file:
            pq.write_table(plan.units.table, file, compression="zstd")
        description = {
            "format": FORMAT,
            "nfbmr_version": __version__,
            "run_id": plan.run_id,
            "request": plan.request,
            "models": {name: asdict(model) for name, model in plan.models.items()},
            "model_errors": plan.model_errors,
            "files": self._files,
        }
        data = json.dumps(description, indent=1).encode()
        storage.write_new(storage.join(self.folder, PLAN_JSON), data)

    def discard(self) -> None:
        """Remove what was written: another driver's plan is the run's."""
        names = [file["name"] for file in self._files]
        store_folders.remove_files(self.folder, [*names, _units_name(self.run_id)])


def remove_other_plans(plan: Plan, output: str) -> None:
    """Remove what drivers that were killed while they planned left behind."""
    folder = storage.join(output, PLAN_FOLDER)
    kept = {PLAN_JSON, _units_name(plan.run_id)}
    own = _pictures_name(plan.run_id, 0).rpartition("-")[0]
    names = [n for n in store_folders.list_names(folder) if n not in kept and not n.startswith(own)]
    store_folders.remove_files(folder, names)
    store_folders.remove_tree(storage.join(folder, LISTING_FOLDER))


def save_plan(plan: Plan, ordered: pa.Table, output: str) -> None:
    """Write a plan whose pictures are all in memory.

    Args:
        plan: of the run.
        ordered: its pictures, rows of ``PICTURES``, in the order of its units.
        output: of the run.
    """
    writer = PlanWriter(output, plan.run_id)
    writer.write(ordered, plan.units)
    writer.finish(plan)


def _pictures_name(run_id: str, group: int) -> str:
    """The file that holds a row group of the plan."""
    return f"pictures-{run_id}-{group // _GROUPS_PER_FILE:05d}.parquet"


def _units_name(run_id: str) -> str:
    return f"units-{run_id}.parquet"


def load_plan(output: str) -> Plan | None:
    """The plan under an output, or None where there is none yet.

    Raises:
        OutputError: it is damaged or of another format.
    """
    folder = storage.join(output, PLAN_FOLDER)
    data = storage.read(storage.join(folder, PLAN_JSON))
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
        if not re.fullmatch(r"[\w-]+", description["run_id"]):
            raise ValueError(f"no id of a run: {description['run_id']!r}")
        data = storage.read(storage.join(folder, _units_name(description["run_id"])))
        units = plain(pq.read_table(pa.BufferReader(data)))
        units.validate(full=True)  # Parquet does not look whether text is UTF-8.
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
        if is_stores(error):
            raise
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
    found = {name: file.size for name, file in store_folders.list_tree(folder).items()}
    for file in files:
        name, size = file["name"], file["bytes"]
        if found.get(name) != size:
            raise ValueError(f"{name} has {found.get(name)} bytes, expected {size}")


def _open(output: str, name: str) -> pq.ParquetFile:
    uri = storage.join(output, PLAN_FOLDER, name)
    fs, path = storage.file_system(uri)
    return plain(pq.ParquetFile(fs.open(path, "rb", block_size=_BLOCK_BYTES), pre_buffer=False))


def _read_whole(output: str, name: str) -> pa.Table:
    with _open(output, name) as file:
        return file.read()


def planned_table(plan: Plan, output: str, uris: Collection[str] | None = None) -> pa.Table:
    """Pictures of a saved plan: rows of ``PICTURES``, sorted by category.

    Args:
        plan: of the run.
        output: of the run.
        uris: names of the pictures that are wanted; None for all.
    """
    wanted = None if uris is None else pa.array(sorted(uris), pa.large_string())
    tables = [PICTURES.empty_table()]
    for group in range(0, plan.units.row_groups, _GROUPS_PER_FILE):
        table = retried(partial(_read_whole, output, _pictures_name(plan.run_id, group)))
        if wanted is not None:
            table = table.filter(pc.is_in(table.column("image_uri"), value_set=wanted))
        tables.append(table)
    return sorted_by_category(pa.concat_tables(tables))


@lru_cache(maxsize=2)
def row_group(output: str, run_id: str, group: int) -> pa.Table:
    """A row group of a saved plan, kept for the next unit: rows of ``PICTURES``.

    Raises:
        OutputError: it is damaged.
    """

    def read() -> pa.Table:
        with _open(output, _pictures_name(run_id, group)) as file:
            return file.read_row_group(group % _GROUPS_PER_FILE)

    try:
        rows = retried(read).select(PICTURES.names).cast(PICTURES)
        rows.validate(full=True)
        return rows
    except FileNotFoundError as error:
        raise OutputError(
            f"The plan in {storage.join(output, PLAN_FOLDER)} cannot be seen on node "
            f"{platform.node()} ({error}): was it removed, or is the output a folder that only "
            "some nodes have? Give an --output that all nodes reach."
        ) from error
    except _DAMAGE as error:
        if is_stores(error):
            raise
        raise _damaged(output, error) from error


def _unit_rows(output: str, run_id: str, unit: PlannedUnit) -> pa.Table:
    """The rows of one unit. Its name says what they are: a retry may have planned anew meanwhile.

    Raises:
        OutputError: the plan is damaged.
    """
    if min(unit.row_group, unit.start, unit.count) < 0:
        raise _damaged(output, ValueError(f"unit {unit.name} lies nowhere"))
    for _ in range(2):
        rows = row_group(output, run_id, unit.row_group).slice(unit.start, unit.count)
        if unit_name(rows, unit.category) == unit.name:
            return rows
        row_group.cache_clear()
    raise _damaged(output, ValueError(f"unit {unit.name} holds other pictures than its name says"))


def unit_pictures(output: str, run_id: str, unit: PlannedUnit) -> list[PlannedPicture]:
    """The pictures of one unit, read from the saved plan.

    Raises:
        OutputError: the plan is damaged.
    """
    rows = _unit_rows(output, run_id, unit)
    return [PlannedPicture(**row) for row in rows.to_pylist()]


def unit_uris(output: str, run_id: str, unit: PlannedUnit) -> list[str]:
    """The names of one unit's pictures, read from the saved plan; see ``unit_pictures``."""
    rows = _unit_rows(output, run_id, unit)
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
