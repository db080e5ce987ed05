"""Scoring on a real local Ray: rows out = pictures in, and the same again after interruptions."""

import csv
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from nfbmr.errors import DataError, OutputError, WeightsError, WorkerError
from nfbmr.model.scoring import image_scores
from nfbmr.progress import Progress
from nfbmr.score import run
from nfbmr.score.dataset import read_scores
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.single import score_pictures
from nfbmr.score.summary import ScoringSummary
from nfbmr.score.units import finished_units, read_unit, write_unit
from nfbmr.settings import DriftSettings
from tests.conftest import Trained

QUIET = Progress(quiet=True)
ONCE = ("run_id", "scored_at")


def score_to(trained: Trained, output: Path | str, *sources: str, **more: object) -> ScoringSummary:
    request = ScoringRequest(sources or (trained.factory.archive,), str(output), **more)  # type: ignore[arg-type]
    return score(request, trained.registry, trained.config.run, QUIET)


class CutOffError(Exception):
    """Stands for a driver that is killed at this place."""


def cut_off(*_: object) -> None:
    raise CutOffError


@pytest.fixture(scope="module")
def undisturbed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    output = tmp_path_factory.mktemp("undisturbed") / "scores"
    score_to(trained, output)
    return read_scores(str(output))


def test_rows_out_are_pictures_in_and_broken_ones_are_errors(
    trained: Trained, undisturbed: pa.Table
) -> None:
    with Path(trained.factory.labels).open(newline="") as file:
        labels = {row["member"]: row for row in csv.DictReader(file)}
    rows = {row["member"]: row for row in undisturbed.to_pylist()}
    assert undisturbed.num_rows == len(rows) == len(labels) == trained.settings.archive + 3
    for member, label in labels.items():
        row = rows[member]
        assert row["category"] == label["category"]
        assert row["image_uri"] == f"{trained.factory.archive}::{member}"
        if label["is_broken"] == "True":
            assert row["status"] == "error"
            assert row["score"] is None
            assert len(row["error"]) > 20
            assert row["error_kind"] in ("empty", "unsupported", "unreadable", "truncated")
        else:
            assert row["status"] == "ok"
            assert row["error"] is None
            assert row["error_kind"] is None


def test_a_row_agrees_with_itself_and_with_its_model(
    trained: Trained, undisturbed: pa.Table
) -> None:
    compared = 0
    for row in undisturbed.to_pylist():
        if row["status"] == "error":
            continue
        detector = trained.registry.load(row["category"], row["model_version"])
        map_HW = np.array(row["anomaly_map"], dtype=float)
        map_HW = map_HW.reshape(row["map_height"], row["map_width"])
        if map_HW.max() < np.finfo(np.float16).max:
            whole = image_scores(torch.from_numpy(map_HW)[None], detector.aggregate)
            assert row["score"] == pytest.approx(float(whole), rel=1e-3)
            compared += 1
        assert row["model_name"] == f"nfbmr-{row['category']}"
        assert row["threshold"] == detector.threshold
        assert row["is_anomalous"] == (row["score"] > row["threshold"])
        assert row["p_value"] == detector.calibration.p_values(row["score"])
        assert row["calibration_size"] == detector.calibration.n
        y, x = np.unravel_index(map_HW.argmax(), map_HW.shape)
        assert row["peak_x"] == pytest.approx(
            (x + 0.5) / row["map_width"], abs=1 / row["map_width"]
        )
        assert row["peak_y"] == pytest.approx(
            (y + 0.5) / row["map_height"], abs=1 / row["map_height"]
        )
        assert (row["image_height"], row["image_width"]) == (128, 128)
        assert map_HW.min() >= 0
    assert compared > undisturbed.num_rows / 2


def test_single_pictures_score_the_same_without_ray(
    trained: Trained, undisturbed: pa.Table, tmp_path: Path
) -> None:
    rows = [row for row in undisturbed.to_pylist() if row["status"] == "ok"][:3]
    with tarfile.open(trained.factory.archive) as tar:
        for row in rows:
            member = tar.extractfile(row["member"])
            assert member is not None
            path = tmp_path / row["member"].replace("/", "-")
            path.write_bytes(member.read())
            detector = trained.registry.load(row["category"])
            alone = score_pictures(detector, [str(path)])[0]
            assert alone["score"] == pytest.approx(row["score"], rel=0.02)


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Equal but for when and in which run they were scored; scores up to rounding."""

    def plain(table: pa.Table) -> list[dict[str, object]]:
        rows = table.drop_columns([*ONCE, "anomaly_map"]).to_pylist()
        rows.sort(key=lambda row: str(row["image_uri"]))
        return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]

    return plain(one) == plain(other)


@pytest.mark.integration
def test_what_was_cut_off_goes_on_and_gives_the_same_rows(
    trained: Trained, undisturbed: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some units are committed, one of them under a name that is only half written."""

    output = tmp_path / "scores"
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", cut_off)
        with pytest.raises(CutOffError):
            score_to(trained, output)
    done = sorted(finished_units(str(output)))
    lost, kept = done[: len(done) // 2], done[len(done) // 2 :]
    for name in lost:
        (output / "_units" / f"{name}.parquet").unlink()
    (output / "_units" / f".{lost[0]}.parquet.123.partial").write_bytes(b"half a file")
    stamps = {name: (output / "_units" / f"{name}.parquet").stat().st_mtime_ns for name in kept}
    expected = sum(read_unit(str(output), name).num_rows for name in kept)
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", cut_off)
        with pytest.raises(CutOffError):
            score_to(trained, output)
    for name, stamp in stamps.items():
        assert (output / "_units" / f"{name}.parquet").stat().st_mtime_ns == stamp
    summary = score_to(trained, output)
    assert summary.scored_now == 0
    assert summary.pictures == undisturbed.num_rows > expected
    assert same_rows(read_scores(str(output)), undisturbed)
    again = score_to(trained, output)
    assert (again.pictures, again.failed, again.scored_now) == (summary.pictures, 3, 0)


@pytest.mark.integration
def test_a_unit_with_other_rows_than_planned_is_not_accepted(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores"
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", cut_off)
        with pytest.raises(CutOffError):
            score_to(trained, output)
    name = min(finished_units(str(output)))
    write_unit(str(output), name, read_unit(str(output), name).slice(1))
    with pytest.raises(OutputError, match=f"Unit {name} .* does not hold the pictures of the plan"):
        score_to(trained, output)


def test_an_output_of_another_run_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / trained.results[0].category
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    output = tmp_path / "scores"
    score_to(trained, output, str(tmp_path / "pictures"))
    with pytest.raises(OutputError, match=r"already holds another run: its sources is"):
        score_to(trained, output, trained.factory.archive)
    with pytest.raises(OutputError, match="its alias is 'champion', yours is '1'"):
        score_to(trained, output, str(tmp_path / "pictures"), alias="1")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files but no plan"):
        score_to(trained, strange)
    assert (strange / "thesis.txt").read_text() == "mine"


@pytest.mark.integration
def test_prefixes_and_object_stores_too_and_categories_without_a_model_are_rows(
    trained: Trained, undisturbed: pa.Table, s3_bucket: str, tmp_path: Path
) -> None:
    """From a bucket to a bucket; one category has no model; another file has no category."""
    store = fsspec.filesystem("s3")
    with tarfile.open(trained.factory.archive) as tar:
        members = [m for m in tar.getmembers() if m.size > 1000][:6]
        for member in members:
            stream = tar.extractfile(member)
            assert stream is not None
            store.pipe_file(f"{s3_bucket}/pictures/{member.name}", stream.read())
    store.pipe_file(f"{s3_bucket}/pictures/unheard_of/1.png", b"x")
    store.pipe_file(f"{s3_bucket}/pictures/stray.png", b"x")
    summary = score_to(trained, f"{s3_bucket}/scores", f"{s3_bucket}/pictures")
    assert (summary.pictures, summary.failed) == (8, 2)
    rows = {row["member"]: row for row in read_scores(f"{s3_bucket}/scores").to_pylist()}
    assert "no model" in rows["unheard_of/1.png"]["error"]
    assert "no category" in rows["stray.png"]["error"]
    assert rows["unheard_of/1.png"]["error_kind"] == "no_model"
    assert rows["stray.png"]["error_kind"] == "no_category"
    before = {row["member"]: row["score"] for row in undisturbed.to_pylist()}
    for member in members:
        assert rows[member.name]["score"] == pytest.approx(before[member.name], rel=0.02)


@pytest.mark.integration
def test_pictures_under_another_lamp_are_said_to_drift_and_others_are_not(
    trained: Trained, tmp_path: Path
) -> None:
    """Normal pictures that no fit has seen, as they are and at a third of the light."""
    for name in ("as they are", "darker"):
        for picture in Path(trained.factory.root).glob("*/test/good/*"):
            target = tmp_path / name / picture.parts[-4] / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            image = Image.open(picture)
            (image if name == "as they are" else image.point(lambda v: v // 3)).save(target)
    settings = replace(trained.config.run, drift=DriftSettings(max_ks=0.5, min_pictures=10))
    warnings = {}
    for name in ("as they are", "darker"):
        request = ScoringRequest((str(tmp_path / name),), str(tmp_path / f"scores, {name}"))
        said = io.StringIO()
        summary = score(request, trained.registry, settings, Progress(said))
        written = json.loads((Path(summary.output) / "_summary.json").read_text())
        assert written["drift"] == summary.drift
        assert all(f"warning: {warning}" in said.getvalue() for warning in summary.warnings())
        warnings[name] = summary.warnings()
    assert warnings["as they are"] == []
    assert len(warnings["darker"]) == trained.settings.categories
    assert all("drifts: KS statistic" in warning for warning in warnings["darker"])


def test_missing_sources_and_wrong_weights_end_before_any_work(
    trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        score_to(trained, tmp_path / "a", str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="no such file"):
        score_to(trained, tmp_path / "b", weights=str(tmp_path / "none.safetensors"))
    assert not (tmp_path / "b" / "_units").exists()


@pytest.mark.integration
def test_an_output_that_cannot_be_written_is_a_sentence(trained: Trained, tmp_path: Path) -> None:
    """The commit fails in an actor: what reaches the user is the cause, not Ray's traceback."""
    output = tmp_path / "scores"
    request = ScoringRequest((trained.factory.archive,), str(output))
    run.prepare(request, str(output), trained.registry, trained.config.run, QUIET)
    (output / "_units").write_text("a file where a folder is wanted")
    with pytest.raises(WorkerError, match=r"while scoring: FileExistsError: .*_units") as caught:
        score(request, trained.registry, trained.config.run, QUIET)
    assert "\n" not in str(caught.value)
