"""Replacing rows of a finished data set: the new ones in the old places, nothing else changes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import jobs.score
from nfbmr import storage
from nfbmr.errors import FailureBudgetError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score import merge, retry
from nfbmr.score.dataset import RETRY_FOLDER, finished_marker, read_marker, read_scores
from nfbmr.score.plan import Plan
from nfbmr.score.plan_files import unit_uris
from nfbmr.score.retry import pictures_read_before, replace_rows, retry_failed
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.status import run_status
from nfbmr.score.units import read_unit, write_unit
from nfbmr.settings import OutputSettings, RunSettings
from tests.score.committed_run import committed, finished, rows


@pytest.mark.parametrize("partitioned", [False, True])
def test_rows_are_replaced_in_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitioned: bool
) -> None:
    output = str(tmp_path)
    plan, schema = committed(output, [14, 6], ["bottle", "nut"])
    arranged = OutputSettings(rows_per_file=8, partition_by_category=partitioned)
    monkeypatch.setattr(merge, "ROW_GROUP_ROWS", 3)
    finished(output, plan, schema, RunSettings(output=arranged))
    before = read_scores(output)
    marker = read_marker(output)
    assert marker is not None
    files = [tmp_path / "data" / name for name in marker["files"]]
    groups, stamps = list(map(group_sizes, files)), list(map(stamp, files))
    mended = ["x::bottle/000000", "x::bottle/000003", "x::nut/000003"]
    new = pa.concat_tables(as_scored(uri, schema) for uri in reversed(mended))

    def new_of(wanted: pa.ChunkedArray) -> pa.Table | None:
        held = pc.is_in(new.column("image_uri"), value_set=wanted.cast(pa.string()))
        return new if pc.any(held).as_py() else None

    replace_rows(output, marker["files"], new_of)
    after = read_scores(output)
    assert after.column("image_uri") == before.column("image_uri")
    changed = pc.is_in(after.column("image_uri"), value_set=pa.array(mended))
    assert after.filter(pc.invert(changed)).equals(before.filter(pc.invert(changed)))
    assert after.filter(changed).column("status").to_pylist() == ["ok"] * 3
    assert after.filter(changed).column("score").to_pylist() == [0.5] * 3
    assert list(map(group_sizes, files)) == groups
    rewritten = [before != after for before, after in zip(stamps, map(stamp, files), strict=True)]
    assert rewritten == [bool(set(mended) & set(uris(file))) for file in files]
    assert rewritten.count(False) > 0
    assert b"nfbmr" in pq.read_schema(files[0]).metadata


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


def uris(path: Path) -> list[str]:
    names: list[str] = pq.ParquetFile(path).read(columns=["image_uri"]).column(0).to_pylist()
    return names


def group_sizes(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def as_scored(uri: str, schema: pa.Schema) -> pa.Table:
    """The row of a picture that failed, as if it had been scored."""
    category = uri.removeprefix("x::").partition("/")[0]
    table = rows(["x::bottle/000001"], category, schema)
    index = table.schema.get_field_index("image_uri")
    return table.set_column(index, schema.field(index), pa.array([uri]))


@pytest.mark.parametrize("partitioned", [False, True])
def test_pictures_that_the_run_could_read_are_drawn_from_all_over_its_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitioned: bool
) -> None:
    output = str(tmp_path)
    plan, schema = committed(output, [60, 6], ["bottle", "nut"])
    for unit in plan.units:
        with_hashes(output, unit.name)
    monkeypatch.setattr(merge, "ROW_GROUP_ROWS", 3)
    arranged = OutputSettings(rows_per_file=12, partition_by_category=partitioned)
    finished(output, plan, schema, RunSettings(output=arranged))
    names = finished_marker(output)["files"]
    drawn = [pictures_read_before(plan, output, names) for _ in range(20)]
    assert all(2 < len(pictures) <= 16 for pictures in drawn)
    found = {picture.image_uri for pictures in drawn for picture in pictures}
    scored = read_scores(output).filter(pc.field("status") == "ok").column("image_uri").to_pylist()
    assert found <= set(scored)
    assert len(found) > 16
    assert drawn[0][0].version == "v"


def with_hashes(output: str, unit: str) -> None:
    """Give the rows of a unit that were scored the hashes of what was read."""
    table = read_unit(output, unit)
    index = table.schema.get_field_index("content_hash")
    field = table.schema.field(index)
    read = pc.equal(table.column("status"), "ok")
    hashes = pc.if_else(read, pa.scalar("ab", field.type), pa.scalar(None, field.type))
    write_unit(output, unit, table.set_column(index, field, hashes))


def replaced_but_not_recorded(output: str, plan: Plan, schema: pa.Schema) -> None:
    """What a retry leaves that mended everything and was killed before it wrote the marker."""
    names = finished_marker(output)["files"]
    retried = storage.join(output, RETRY_FOLDER)
    again = retry._plan_again(plan, output, names, retried)
    assert again is not None
    for unit in again.units:
        own = unit_uris(retried, again.run_id, unit)
        write_unit(retried, unit.name, pa.concat_tables(as_scored(uri, schema) for uri in own))
    retry._replace(again, retried, output, names)


def test_a_retry_that_was_cut_off_is_told_and_its_rows_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The marker still counts the errors that are gone; the same retry then writes a new one."""
    output, loud = str(tmp_path / "scores"), Progress()
    request, registry = ScoringRequest(("x",), output), Registry(f"sqlite:///{tmp_path}/none.db")
    plan, schema = committed(output, request=json.loads(json.dumps(request.identity())))
    settings = RunSettings()
    finished(output, plan, schema, settings)
    with pytest.raises(FailureBudgetError):
        score(request, registry, settings, loud).check_failures(settings)
    assert not run_status(output).retry_begun
    assert "begun" not in capsys.readouterr().err
    replaced_but_not_recorded(output, plan, schema)
    assert finished_marker(output)["failed"] == 3
    summary = score(request, registry, settings, loud)
    assert (summary.failed, summary.failed_by_kind, summary.scored_now) == (0, {}, 0)
    summary.check_failures(settings)
    assert "the same command with --retry-failed goes on" in capsys.readouterr().err
    status = run_status(output)
    assert (status.finished, status.failed, status.retry_begun) == (True, 0, True)
    assert jobs.score.main(["--output", output, "--status"]) == 0
    assert "--retry-failed goes on with it" in capsys.readouterr().out
    assert retry_failed(request, registry, settings, loud).failed == 0
    assert finished_marker(output)["failed"] == 0
    assert not run_status(output).retry_begun
