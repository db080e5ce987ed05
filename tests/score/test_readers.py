"""What other programs make of a finished data set: pyarrow, pandas, DuckDB, Ray and Spark."""

import json
import subprocess
import urllib.parse
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
import ray

from nfbmr.score.dataset import read_scores
from nfbmr.settings import OutputSettings, RunSettings
from tests.score.committed_run import committed, finished

SPARK = Path(__file__).parents[2] / ".tools" / "spark" / "bin" / "python"
CATEGORIES = ["007", "a b", "a/b:c%2F=?", "bottle", "ü"]
COUNTS = [7, 4, 5, 20, 3]


@pytest.fixture(scope="module", params=["one folder", "folders by category"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of several files."""
    made = str(tmp_path_factory.mktemp("scores"))
    plan, schema = committed(made, COUNTS, CATEGORIES)
    partitioned = request.param == "folders by category"
    arranged = OutputSettings(rows_per_file=6, partition_by_category=partitioned)
    finished(made, plan, schema, RunSettings(output=arranged))
    return made


@pytest.fixture(scope="module")
def expected(output: str) -> pa.Table:
    return read_scores(output)


HIVE = pyarrow.dataset.partitioning(pa.schema([("category", pa.string())]), flavor="hive")


@pytest.mark.parametrize("below", ["", "/data"])
def test_pyarrow_reads_the_output_itself_and_its_data_folder(
    output: str, expected: pa.Table, below: str
) -> None:
    table = pyarrow.dataset.dataset(output + below, partitioning=HIVE).to_table()
    table = table.select(expected.schema.names).sort_by("image_uri")
    assert table.to_pylist() == expected.sort_by("image_uri").to_pylist()


def test_pandas_reads_it(output: str, expected: pa.Table) -> None:
    frame = pd.read_parquet(f"{output}/data", partitioning=HIVE).sort_values("image_uri")
    rows = expected.sort_by("image_uri").to_pylist()
    assert frame["category"].tolist() == [row["category"] for row in rows]
    for found, row in zip(frame["anomaly_map"], rows, strict=True):
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, np.array(row["anomaly_map"], dtype=np.float16))


def test_duckdb_reads_it(output: str, expected: pa.Table) -> None:
    """Folders' names included; a category that looks like a number stays what it is."""
    files = f"{output}/data/**/*.parquet"
    source = f"read_parquet('{files}', hive_partitioning = true, hive_types_autocast = false)"
    names = ", ".join(name for name in expected.schema.names if name != "scored_at")
    found = duckdb.sql(f"select {names} from {source} order by image_uri").fetchall()
    rows = expected.drop_columns(["scored_at"]).sort_by("image_uri").to_pylist()
    plain = [[list(v) if isinstance(v, tuple) else v for v in row] for row in found]
    assert plain == [list(row.values()) for row in rows]
    worst = duckdb.sql(f"select category, max(score) from {source} where status = 'ok' group by 1")
    best = {
        name: max(r["score"] for r in rows if r["category"] == name and r["status"] == "ok")
        for name in CATEGORIES
    }
    assert dict(worst.fetchall()) == best


def test_ray_reads_it(output: str, expected: pa.Table, local_ray: None) -> None:
    found = (
        ray.data.read_parquet(f"{output}/data").select_columns(["image_uri", "score"]).take_all()
    )
    known = expected.select(["image_uri", "score"]).to_pylist()
    assert sorted(found, key=by_uri) == sorted(known, key=by_uri)


def by_uri(row: dict[str, object]) -> str:
    return str(row["image_uri"])


def test_every_folder_name_is_what_its_rows_say(output: str, expected: pa.Table) -> None:
    folders = [path.name for path in Path(output, "data").iterdir() if path.is_dir()]
    if folders:
        names = [urllib.parse.unquote(name.removeprefix("category=")) for name in folders]
        assert sorted(names) == sorted(CATEGORIES)


SPARK_SCRIPT = """
import json, sys
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    .getOrCreate()
)
frame = spark.read.parquet(sys.argv[1]).orderBy("image_uri")
rows = [
    [row.image_uri, row.category, row.status, row.score, row.error_kind, row.map_width,
     None if row.score is None else
     [value.hex() if isinstance(value, (bytes, bytearray)) else value for value in row.anomaly_map]]
    for row in frame.collect()
]
comments = {field.name: field.metadata.get("comment") for field in frame.schema}
print("RESULT" + json.dumps([rows, comments, spark.read.parquet(sys.argv[1]).count()]))
"""


def spark_reads(folder: str) -> tuple[list[list[object]], dict[str, str], int]:
    if not SPARK.exists():
        pytest.skip("Spark is not here: make spark installs it into an environment of its own")
    command = [str(SPARK), "-c", SPARK_SCRIPT, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    rows, comments, count = json.loads(line.removeprefix("RESULT"))
    return rows, comments, count


def plain_rows(table: pa.Table) -> list[list[object]]:
    names = ["image_uri", "category", "status", "score", "error_kind", "map_width"]
    return [[row[name] for name in names] for row in table.sort_by("image_uri").to_pylist()]


@pytest.mark.integration
def test_spark_reads_it_with_half_precision_as_two_bytes(output: str, expected: pa.Table) -> None:
    rows, comments, count = spark_reads(f"{output}/data")
    assert count == len(rows) == expected.num_rows
    assert [row[:-1] for row in rows] == plain_rows(expected)
    assert comments["anomaly_map"].startswith("per-position score")
    for row, known in zip(rows, expected.sort_by("image_uri").to_pylist(), strict=True):
        if known["score"] is not None:
            values = np.frombuffer(bytes.fromhex("".join(row[-1])), dtype="<f2")  # type: ignore[arg-type]
            assert values.tolist() == known["anomaly_map"]


@pytest.mark.integration
def test_spark_reads_maps_in_single_precision_as_floats(tmp_path: Path) -> None:
    plan, schema = committed(str(tmp_path), COUNTS, CATEGORIES, map_type="float32")
    settings = RunSettings(output=OutputSettings(rows_per_file=6, map_type="float32"))
    finished(str(tmp_path), plan, schema, settings)
    rows, _, _ = spark_reads(f"{tmp_path}/data")
    table = read_scores(str(tmp_path)).sort_by("image_uri")
    known = table.column("anomaly_map").to_pylist()
    assert [row[-1] for row in rows] == [
        values if row[3] is not None else None for values, row in zip(known, rows, strict=True)
    ]
