"""Units become one data set with a marker; a reader never sees half a run."""

import datetime
import json
import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr import storage
from nfbmr.errors import ConfigError, OutputError
from nfbmr.score import finish as finish_module
from nfbmr.score import merge
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.parts import category_folder, check_folders, cut_parts
from nfbmr.score.plan_files import unit_uris
from nfbmr.score.schema import cast_rows, score_schema
from nfbmr.score.units import finished_units, write_unit
from nfbmr.settings import OutputSettings, RunSettings
from tests.score.committed_run import committed, finished, planned, rows

DEFAULT = RunSettings()
NAMES = ["007", "a b", "a/b:c%2F=*?", "bottle", "nut", "ü"]


class CutOffError(Exception):
    """Stands for a driver that is killed at this place."""


def settings(**output: object) -> RunSettings:
    return RunSettings(output=OutputSettings(**output))  # type: ignore[arg-type]


def uris(table: pa.Table) -> list[str]:
    names: list[str] = table.column("image_uri").to_pylist()
    return names


def test_units_become_files_in_the_plans_order(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    assert finished_units(output) == {unit.name for unit in plan.units}
    with pytest.raises(OutputError, match="no finished scoring run"):
        read_scores(output)
    summary = finished(output, plan, schema, DEFAULT)
    assert (summary.pictures, summary.failed) == (9, 3)
    assert summary.failed_by_kind == {"unsupported": 3}
    assert uris(read_scores(output)) == [f"x::bottle/{i:06d}" for i in range(9)]
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    plan_files = {name for name in found if name.startswith("_plan/")}
    assert found - plan_files == {"data/part-00000.parquet", "_SUCCESS", "_summary.json"}
    assert json.loads((tmp_path / "_summary.json").read_text()) == summary.as_dict()
    assert read_marker(output)["files"] == ["part-00000.parquet"]  # type: ignore[index]


def test_a_file_says_what_its_columns_are_and_where_its_rows_come_from(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    finished(output, plan, schema, DEFAULT)
    written = pq.read_schema(tmp_path / "data" / "part-00000.parquet")
    assert written.names == schema.names
    assert all(field.metadata[b"description"] for field in written)
    origin = json.loads(written.metadata[b"nfbmr"])
    assert (origin["run_id"], origin["models"]) == (plan.run_id, {"bottle": "1"})
    file = pq.ParquetFile(tmp_path / "data" / "part-00000.parquet")
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    rows_per_file=st.integers(1, 40),
    partitioned=st.booleans(),
)
def test_files_hold_every_unit_once_in_order_and_are_no_larger_than_wanted(
    counts: list[int],
    rows_per_file: int,
    partitioned: bool,
) -> None:
    plan, _ = planned(counts, NAMES[: len(counts)])
    schema = score_schema({12})
    wanted = OutputSettings(rows_per_file=rows_per_file, partition_by_category=partitioned)
    parts = cut_parts(plan, schema, wanted)
    assert [unit for part in parts for unit in part.units] == list(plan.units)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        assert part.rows <= rows_per_file or len(part.units) == 1
        if partitioned:
            assert len({unit.category for unit in part.units}) == 1
            assert part.name.startswith(category_folder(part.units[0].category) + "/")
    assert parts == cut_parts(plan, schema, wanted)


def test_the_size_of_a_file_is_bounded_in_mib_too(tmp_path: Path) -> None:
    plan, schema = committed(str(tmp_path), [12_000], unit_size=1000)
    parts = cut_parts(plan, schema, OutputSettings(mib_per_file=1))
    assert [part.rows for part in parts] == [11_000, 1_000]
    finished(str(tmp_path), plan, schema, settings(mib_per_file=1))
    sizes = [path.stat().st_size for path in tmp_path.glob("data/*.parquet")]
    assert max(sizes) <= 2**20


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("rows_per_file", [1, 4, 1000])
def test_data_sets_of_any_arrangement_hold_the_same_rows(
    tmp_path: Path, rows_per_file: int, partitioned: bool
) -> None:
    output = str(tmp_path / "a=b")
    plan, schema = committed(output, [7, 4, 5, 1, 2, 3], NAMES)
    arranged = settings(rows_per_file=rows_per_file, partition_by_category=partitioned)
    finished(output, plan, schema, arranged)
    table = read_scores(output)
    expected = [
        rows([f"x::{n}/{i:06d}" for i in range(c)], n, schema)
        for n, c in zip(NAMES, [7, 4, 5, 1, 2, 3], strict=True)
    ]
    assert table.replace_schema_metadata(None).equals(pa.concat_tables(expected))


def test_pictures_without_a_category_have_a_folder_too(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output, [3, 4], ["", "bottle"])
    finished(output, plan, schema, settings(partition_by_category=True))
    assert (tmp_path / "data" / "category=__HIVE_DEFAULT_PARTITION__").is_dir()
    assert read_scores(output).column("category").to_pylist() == [""] * 3 + ["bottle"] * 4


@pytest.mark.parametrize("rows_per_group", [1, 7, 100])
def test_row_groups_gather_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_group: int
) -> None:
    plan, schema = committed(str(tmp_path), [30])
    monkeypatch.setattr(merge, "ROW_GROUP_ROWS", rows_per_group)
    finished(str(tmp_path), plan, schema, DEFAULT)
    file = pq.ParquetFile(tmp_path / "data" / "part-00000.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    whole = -(-rows_per_group // 3) * 3
    assert all(size == min(whole, 30) for size in groups[:-1])
    assert sum(groups) == 30


def test_maps_in_single_precision_have_the_same_values(tmp_path: Path) -> None:
    """Also where the units were scored before the setting was changed."""
    for name, map_type in (("half", "float16"), ("single", "float32")):
        plan, _ = committed(str(tmp_path / name))
        wanted = score_schema({12}, map_type)
        finished(str(tmp_path / name), plan, wanted, settings(map_type=map_type))
    half, single = (read_scores(str(tmp_path / name)) for name in ("half", "single"))
    assert single.schema.field("anomaly_map").type == pa.list_(pa.float32(), 12)
    maps = [table.column("anomaly_map").to_pylist() for table in (half, single)]
    assert maps[0] == maps[1]
    with pytest.raises(ConfigError, match=r"run\.output\.map_type = 'int8': expected one of"):
        OutputSettings(map_type="int8")


def test_sessions_with_other_types_of_maps_make_one_data_set(tmp_path: Path) -> None:
    """Found in review: the setting was changed when half of the units were there."""
    output = str(tmp_path)
    plan, half = committed(output, [30])
    single = score_schema({12}, "float32")
    for unit in list(plan.units)[::2]:
        uris = unit_uris(output, plan.run_id, unit)
        write_unit(output, unit.name, rows(uris, unit.category, single))
    finished(output, plan, single, settings(map_type="float32"))
    table = read_scores(output)
    assert table.schema.field("anomaly_map").type == pa.list_(pa.float32(), 12)
    assert table.num_rows == 30
    assert half != single


def test_a_category_that_no_folder_can_be_named_after_is_a_sentence(root: str) -> None:
    """On a disk; an object store's keys are long enough."""
    partitioned = OutputSettings(partition_by_category=True)
    check_folders(["a" * 240], root, partitioned)
    check_folders(["a" * 300], root, OutputSettings())
    if root.startswith("s3://"):
        check_folders(["a" * 300], root, partitioned)
        return
    with pytest.raises(ConfigError, match="partition_by_category = false"):
        check_folders(["bottle", "a" * 300], root, partitioned)


def test_maps_beyond_half_precision_are_cut_off_when_rows_are_cast(tmp_path: Path) -> None:
    for sizes in ({4}, {4, 5}):
        single, half = score_schema(sizes, "float32"), score_schema(sizes, "float16")
        maps = [[1e6, -1e6, 0.5, 3.0], [None] * 4]
        columns = {name: [None, None] for name in single.names} | {"anomaly_map": maps}
        for name in ("image_uri", "category", "status", "run_id"):
            columns[name] = ["x", "y"]
        columns["scored_at"] = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)] * 2
        cast = cast_rows(pa.table(columns, schema=single), half)
        assert cast.schema == half
        assert cast.column("anomaly_map").to_pylist() == [[65504.0, -65504.0, 0.5, 3.0], [None] * 4]
        assert cast_rows(cast, single).schema == single


STEPS = [
    ("merge_parts", False),
    ("merge_parts", True),
    ("publish", True),
    ("tally_scores", True),
    ("record_finished", False),
    ("record_finished", True),
]


@pytest.mark.parametrize(("step", "after"), STEPS)
def test_a_run_that_is_cut_off_in_any_step_ends_with_the_same_rows(
    root: str, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    plan, schema = committed(root, [10, 5], ["bottle", "nut"])
    real = getattr(finish_module, step)

    def cut_off(*arguments: object) -> None:
        if after:
            real(*arguments)
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(finish_module, step, cut_off)
        with pytest.raises(CutOffError):
            finished(root, plan, schema, settings(rows_per_file=6))
    if (step, after) != ("record_finished", True):
        with pytest.raises(OutputError, match="no finished scoring run"):
            read_scores(root)
    finished(root, plan, schema, settings(rows_per_file=6))
    expected = [f"x::bottle/{i:06d}" for i in range(10)] + [f"x::nut/{i:06d}" for i in range(5)]
    assert uris(read_scores(root)) == expected
    fs, path = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    left = {name.removeprefix(path).lstrip("/").partition("/")[0] for name in fs.find(path)}
    assert left == {"data", "_plan", "_SUCCESS", "_summary.json"}


def test_a_reader_of_a_disk_sees_no_file_before_all_are_there(tmp_path: Path) -> None:
    """It looks at the folder as fast as it can while the data set is made."""
    output = str(tmp_path)
    plan, schema = committed(output, [150])
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            data = tmp_path / "data"
            names = [path.name for path in data.iterdir()] if data.exists() else []
            seen.add(len(names))
            if names:
                seen.add(pyarrow.dataset.dataset(str(data)).count_rows())

    reader = threading.Thread(target=look)
    reader.start()
    finished(output, plan, schema, settings(rows_per_file=10))
    done.set()
    reader.join()
    files = len(cut_parts(plan, schema, OutputSettings(rows_per_file=10)))
    assert files == 17
    assert seen <= {0, files, 150}


def test_files_that_the_marker_does_not_name_are_not_read(root: str) -> None:
    plan, schema = committed(root)
    finished(root, plan, schema, DEFAULT)
    data = storage.read(storage.join(root, "data", "part-00000.parquet"))
    assert data is not None
    storage.write_atomically(storage.join(root, "data", "part-00009.parquet"), data)
    assert read_scores(root).num_rows == 9


def test_what_a_killed_task_or_a_stranger_left_is_no_part_of_the_data_set(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    real = finish_module.merge_parts

    def merge_parts(work: merge.Merge, *arguments: object) -> None:
        real(work, *arguments)  # type: ignore[arg-type]
        folder = Path(work.folder)
        (folder / f".part-00000.parquet.{'0' * 32}.partial").write_bytes(b"half")
        (folder / ".DS_Store").write_bytes(b"x")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish_module, "merge_parts", merge_parts)
        finished(output, plan, schema, DEFAULT)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["part-00000.parquet"]
    (tmp_path / "_SUCCESS").unlink()
    (tmp_path / "data" / ".DS_Store").write_bytes(b"x")
    finished(output, plan, schema, DEFAULT)
    assert read_scores(output).num_rows == 9


def test_two_drivers_that_finish_at_once_make_one_data_set(root: str) -> None:
    plan, schema = committed(root, [80], unit_size=5)
    summaries = []
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            summaries.append(finished(root, plan, schema, settings(rows_per_file=20)))
        except BaseException as error:
            failures.append(error)

    drivers = [threading.Thread(target=drive) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert failures == []
    assert [summary.failed for summary in summaries] == [27] * 3
    assert uris(read_scores(root)) == [f"x::bottle/{i:06d}" for i in range(80)]


def test_a_merge_that_fails_leaves_no_data_set(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    (tmp_path / "_units" / f"{plan.units[-1].name}.parquet").unlink()
    with pytest.raises(OutputError, match="finished unit"):
        finished(output, plan, schema, DEFAULT)
    assert not (tmp_path / "data").exists()


def test_other_rows_than_planned_are_not_accepted(tmp_path: Path) -> None:
    output = str(tmp_path)
    plan, schema = committed(output)
    write_unit(output, plan.units[1].name, rows(["x::bottle/000099"], "bottle", schema))
    with pytest.raises(OutputError, match="does not hold the pictures of the plan"):
        finished(output, plan, schema, DEFAULT)
