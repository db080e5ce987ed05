"""What the driver of a scoring run costs, measured on pictures and units that are made up.

Plan and merge are timed as a run does them, on this machine's disk; Ray Data is timed with stages
that do nothing. Needs a Ray session.
"""

from __future__ import annotations

import datetime
import tempfile
import threading
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from nfbmr.resources import FETCH_CPUS, ray_data_session
from nfbmr.score.merge import Merge, merge_units
from nfbmr.score.parts import cut_parts
from nfbmr.score.plan import PICTURES, Plan
from nfbmr.score.plan_files import save_plan, unit_uris
from nfbmr.score.planned_units import cut_units
from nfbmr.score.schema import score_schema
from nfbmr.score.units import write_unit
from nfbmr.settings import OutputSettings

_CATEGORIES = 10
_MAP_SIDE = 24
_WATCH_S = 0.002


@dataclass(frozen=True)
class DriverCosts:
    """Measured costs of the driver.

    Attributes:
        plan_s: seconds per picture to cut and save a plan that is listed already.
        plan_bytes: peak of Arrow's memory per picture of a chunk while it is made.
        unit_bytes: memory per unit of a whole plan: its row, once more while units are sorted, and
            its name among those that are finished.
        unit_driver_s: seconds per unit through Ray Data, two stages that do nothing.
        merge_s: seconds per row to merge finished units into files, in one process.
        row_bytes: of a row in a unit's file, with a map of 24 x 24.
    """

    plan_s: float
    plan_bytes: float
    unit_bytes: float
    unit_driver_s: float
    merge_s: float
    row_bytes: float


def measure_driver(pictures: int, units: int, unit_size: int) -> DriverCosts:
    """Measure everything.

    Args:
        pictures: of the made-up plan.
        units: of the merge and of Ray Data.
        unit_size: pictures per unit.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-driver-") as folder:
        plan_s, plan_bytes, unit_bytes = _plan(Path(folder) / "plan", pictures, unit_size)
        merge_s, row_bytes = _merge(str(Path(folder) / "merge"), units, unit_size)
    return DriverCosts(plan_s, plan_bytes, unit_bytes, _ray_data(units), merge_s, row_bytes)


def made_up_pictures(count: int) -> pa.Table:
    """Rows of ``PICTURES`` with names as a factory's bucket has them."""
    number = np.arange(count)
    uris = [f"s3://factory/archive/2026-11-03/line-{i % 12}/part-{i:010d}.png" for i in number]
    return pa.table(
        {
            "image_uri": uris,
            "archive": pa.array(["s3://factory/archive/2026-11-03"] * count),
            "member": [uri.removeprefix("s3://factory/archive/2026-11-03/") for uri in uris],
            "offset": pa.nulls(count, pa.int64()),
            "length": pa.array(number % 100_000 + 500_000, pa.int64()),
            "version": [f"{i:032x}" for i in number],
            "lookup": pa.nulls(count, pa.large_string()),
            "category": [f"category-{i % _CATEGORIES}" for i in number],
            "captured_at": pa.nulls(count, PICTURES.field("captured_at").type),
            "problem": pa.nulls(count, pa.large_string()),
        },
        schema=PICTURES,
    )


def _plan(folder: Path, pictures: int, unit_size: int) -> tuple[float, float, float]:
    with _ArrowPeak() as peak:
        listed = made_up_pictures(pictures)
        started = time.perf_counter()
        ordered = listed.sort_by([(name, "ascending") for name in ("category", "image_uri")])
        ordered = ordered.combine_chunks()
        units = cut_units(ordered, unit_size)
        save_plan(Plan("0", {}, {}, {}, units), ordered, str(folder))
        plan_s = (time.perf_counter() - started) / pictures
        plan_bytes = peak.bytes / pictures
    tracemalloc.start()
    names = set(units.table.column("name").to_pylist())
    name_bytes = tracemalloc.get_traced_memory()[0] / len(names)
    tracemalloc.stop()
    return plan_s, plan_bytes, 2 * units.table.nbytes / len(units) + name_bytes


class _ArrowPeak:
    """Watches how much memory Arrow holds."""

    def __init__(self) -> None:
        self._before = pa.total_allocated_bytes()
        self._peak = self._before
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _ArrowPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_WATCH_S):
            self._peak = max(self._peak, pa.total_allocated_bytes())

    @property
    def bytes(self) -> int:
        """The most so far."""
        return int(self._peak - self._before)


def _merge(output: str, units: int, unit_size: int) -> tuple[float, float]:
    ordered = made_up_pictures(units * unit_size).sort_by(
        [(name, "ascending") for name in ("category", "image_uri")]
    )
    plan = Plan("0", {}, {}, {}, cut_units(ordered.combine_chunks(), unit_size))
    save_plan(plan, ordered, output)
    schema = score_schema({_MAP_SIDE * _MAP_SIDE})
    place = schema.get_field_index("image_uri")
    for number, unit in enumerate(plan.units):
        names = pa.array(unit_uris(output, plan.run_id, unit), schema.field(place).type)
        table = made_up_scores(unit.count, number)
        write_unit(output, unit.name, table.set_column(place, schema.field(place), names))
    files = list((Path(output) / "_units").iterdir())
    row_bytes = sum(file.stat().st_size for file in files) / plan.pictures
    merge = Merge(plan.run_id, output, str(Path(output) / "merged"), schema, {})
    parts = cut_parts(plan, schema, OutputSettings())
    started = time.perf_counter()
    merge_units(merge, parts)
    return (time.perf_counter() - started) / plan.pictures, row_bytes


def made_up_scores(rows: int, seed: int = 0) -> pa.Table:
    """Rows of a finished unit with maps of 24 x 24 that hardly compress."""
    schema = score_schema({_MAP_SIDE * _MAP_SIDE})
    generator = np.random.default_rng(seed)
    uris = [f"s3://factory/archive/part-{number:010d}.png" for number in range(rows)]
    filled: dict[str, Any] = {
        "image_uri": uris,
        "archive": ["s3://factory/archive"] * rows,
        "member": uris,
        "category": ["category-1"] * rows,
        "status": ["ok"] * rows,
        "score": generator.random(rows).tolist(),
        "anomaly_map": list(generator.random((rows, _MAP_SIDE**2)).astype(np.float16)),
        "run_id": ["0" * 32] * rows,
        "scored_at": [datetime.datetime.now(datetime.UTC)] * rows,
    }
    columns = [
        pa.array(filled[field.name], field.type)
        if field.name in filled
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class _Nothing:
    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def _ray_data(units: int) -> float:
    """Seconds per unit from the first that comes back to the last."""
    rows = ray.data.from_arrow([pa.table({"unit": [str(i)]}) for i in range(units)])
    fetched = rows.map_batches(
        lambda batch: batch, batch_size=1, batch_format="pyarrow", num_cpus=FETCH_CPUS
    )
    scored = fetched.map_batches(
        _Nothing,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1 - FETCH_CPUS,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    arrived = []
    with ray_data_session("measuring Ray Data"):
        for _ in scored.iter_rows():
            arrived.append(time.perf_counter())
    return (arrived[-1] - arrived[0]) / (len(arrived) - 1)
