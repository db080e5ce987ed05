"""Merging as many units as a million pictures make: memory stays small. Prints rows per second."""

import datetime
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfbmr.score.merge import ROW_GROUP_ROWS
from nfbmr.score.plan_files import save_plan, unit_uris
from nfbmr.score.schema import score_schema
from nfbmr.score.units import write_unit
from nfbmr.settings import RunSettings
from tests.score.committed_run import finished, planned

UNITS = 16_000
UNIT_SIZE = 64
POSITIONS = 144
GROWTH_MIB = 1024
PAGE_BYTES = 4096


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def scored(uris: Sequence[str], schema: pa.Schema, rng: np.random.Generator) -> pa.Table:
    """Rows with maps that compress as little as real ones."""
    n = len(uris)
    maps = np.abs(rng.normal(1.0, 0.3, (n, POSITIONS))).astype(np.float16)
    constant = {"archive": "x", "category": "bottle", "status": "ok", "threshold": 1.5}
    constant |= {"calibration_size": 199, "is_anomalous": False, "run_id": "r" * 32}
    constant |= {"map_height": 12, "map_width": 12, "image_height": 1024, "image_width": 1024}
    constant |= {"model_name": "nfbmr-bottle", "model_version": "1"}
    constant |= {"scored_at": datetime.datetime.now(datetime.UTC), "error": None}
    values: dict[str, object] = {name: [value] * n for name, value in constant.items()}
    values |= {"image_uri": uris, "member": uris, "error_kind": [None] * n}
    values |= {"score": maps.mean(1, dtype=np.float64), "p_value": rng.integers(1, 201, n) / 200}
    values |= {"peak_x": rng.random(n, np.float32), "peak_y": rng.random(n, np.float32)}
    values |= {"content_hash": [rng.bytes(16).hex() for _ in uris]}
    values["anomaly_map"] = list(maps)
    arrays = [pa.array(values[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


@pytest.mark.slow
def test_a_million_rows_are_merged_in_bounded_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path)
    plan, ordered = planned([UNITS * UNIT_SIZE], ["bottle"], UNIT_SIZE)
    save_plan(plan, ordered, output)
    models = {n: replace(m, feature_shape=(8, 12, 12)) for n, m in plan.models.items()}
    plan = replace(plan, models=models)
    schema, rng = score_schema({POSITIONS}), np.random.default_rng(0)
    for unit in plan.units:
        uris = unit_uris(output, plan.run_id, unit)
        write_unit(output, unit.name, scored(uris, schema, rng))
    before, peak, done = resident_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    summary = finished(output, plan, schema, RunSettings())
    took_s = time.monotonic() - started
    done.set()
    watcher.join()
    with capsys.disabled():
        print(
            f"\n{summary.pictures} rows of {UNITS} units in {took_s:.1f} s: "
            f"{summary.pictures / took_s:.0f} rows/s; memory grew by {peak[0] - before:.0f} MiB"
        )
    assert peak[0] - before < GROWTH_MIB
    sizes = []
    for file in sorted((tmp_path / "data").iterdir()):
        metadata = pq.ParquetFile(file).metadata
        assert metadata.num_rows <= RunSettings().output.rows_per_file
        sizes += [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == UNITS * UNIT_SIZE
    assert max(sizes) < ROW_GROUP_ROWS + UNIT_SIZE
    assert np.median(sizes) > 30_000
