"""The jobs as a user runs them, on a factory that is trained already."""

import importlib
import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.dataset
import pytest
from PIL import Image

import jobs.demo
import jobs.evaluate
import jobs.report
import jobs.score
import jobs.train
from nfbmr import cli
from tests.conftest import Trained

ROOT = Path(__file__).parents[2]


def common(trained: Trained) -> list[str]:
    return ["--work-dir", str(trained.work_dir)]


@pytest.mark.integration
def test_evaluate_twice_reuses_the_scores_and_other_models_make_new_ones(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(trained.factory.root, tmp_path / "data")
    arguments = ["--data", str(data), "--layout", "mvtec", *common(trained)]
    arguments += ["--output", str(tmp_path / "out")]
    assert jobs.evaluate.main(arguments) == 0
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    names = [result.category for result in trained.results]
    assert [c["category"] for c in values["categories"]] == names
    for category in values["categories"]:
        assert category["pictures"] == 20
        assert category["image_auroc"] > 0.7
        assert category["aupro"] is not None
    first = capsys.readouterr().out
    assert "AUPRO" in first
    assert jobs.evaluate.main(arguments) == 0
    assert len(list((tmp_path / "out").glob("scores-*"))) == 1
    assert jobs.evaluate.main([*arguments, "--alias", "1"]) == 0
    assert len(list((tmp_path / "out").glob("scores-*"))) == 2
    replaced = next(Path(data, names[0], "test", "good").iterdir())
    shutil.copy(replaced, replaced.with_name("added.png"))
    assert jobs.evaluate.main([*arguments, "--alias", "1"]) == 0
    assert len(list((tmp_path / "out").glob("scores-*"))) == 3
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert values["categories"][0]["pictures"] == 21
    markdown = (tmp_path / "out" / "evaluation.md").read_text()
    assert markdown.startswith("| category |")
    kept = (tmp_path / "out" / "evaluation.json").read_bytes()
    capsys.readouterr()
    assert jobs.evaluate.main([*arguments, "--categories", names[0]]) == 7
    assert "already holds the evaluation of" in capsys.readouterr().err
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == kept
    page = ["--scores", str(tmp_path / "out"), "--output", str(tmp_path / "page.html")]
    for _ in range(2):
        assert jobs.report.main(page) == 0
    assert "AUPRO" in (tmp_path / "page.html").read_text()
    (tmp_path / "page.html").write_text("<p>mine</p>")
    assert jobs.report.main(page) == 7
    assert (tmp_path / "page.html").read_text() == "<p>mine</p>"


def test_a_night_in_which_nothing_changed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", trained.factory.root, "--layout", "mvtec", *common(trained)]
    arguments += ["--preset", "small", "--set", "backbone.image_size_px=128"]
    arguments += ["--set", "fit.min_steps=60", "--set", "calibration.false_alarm_rate=0.1"]
    until = f"{datetime.now() + timedelta(hours=9):%H:%M}"
    arguments += ["--only-changed", "--until", until, "--json", str(tmp_path / "night.json")]
    assert jobs.train.main(arguments) == 0
    rows = json.loads((tmp_path / "night.json").read_text())
    assert [row["outcome"] for row in rows] == ["unchanged", "unchanged"]
    assert [row["version"] for row in rows] == ["1", "1"]
    assert capsys.readouterr().out.count("version 1 is champion") == 2


def test_a_night_that_begins_after_its_end_does_not_pass_for_one(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is there, but whoever looks at exit codes learns that nothing was done."""
    an_hour_ago = datetime.now() - timedelta(hours=1)
    arguments = ["--data", trained.factory.root, "--layout", "mvtec", "--preset", "small"]
    arguments += ["--work-dir", str(tmp_path / "work"), "--json", str(tmp_path / "night.json")]
    arguments += ["--set", "calibration.false_alarm_rate=0.1"]
    arguments += ["--until", f"{an_hour_ago:%H:%M}"]
    assert jobs.train.main(arguments) == 2
    rows = json.loads((tmp_path / "night.json").read_text())
    assert [row["outcome"] for row in rows] == ["not started", "not started"]
    assert "none of 2 categories was begun. Give a later time" in capsys.readouterr().err


@pytest.mark.integration
def test_a_category_with_too_many_unreadable_pictures_fails_and_so_does_the_command(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "bottle" / "normal"
    folder.mkdir(parents=True)
    for number in range(60):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    for number in range(10):
        (folder / f"broken-{number}.png").write_bytes(b"")
    night, work_dir = tmp_path / "night.json", tmp_path / "work"
    arguments = ["--data", str(tmp_path / "data"), "--layout", "folder", "--preset", "small"]
    arguments += ["--work-dir", str(work_dir), "--json", str(night)]
    arguments += ["--set", "calibration.false_alarm_rate=0.1"]
    assert jobs.train.main(arguments) == 8
    printed = capsys.readouterr()
    assert "1 of 1 categories failed: bottle" in printed.err
    (line,) = (each for each in printed.out.splitlines() if each.startswith("bottle"))
    assert "failed" in line, "the table has its row"
    (row,) = json.loads(night.read_text())
    assert row["outcome"] == "failed"
    assert "training pictures of 'bottle' cannot be read" in row["decision"]
    assert row["unreadable"] > 5


def settings_of(trained: Trained) -> list[str]:
    texts = ["backbone.image_size_px=128", "calibration.false_alarm_rate=0.1"]
    return ["--preset", "small", *(part for text in texts for part in ("--set", text))]


def two_categories_of_which_one_is_too_small(trained: Trained, folder: Path) -> Path:
    shutil.copytree(trained.factory.root, folder)
    small = trained.results[0].category
    for path in sorted((folder / small / "train" / "good").iterdir())[5:]:
        path.unlink()
    return folder


def test_a_night_whose_weights_are_gone_still_has_its_table(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its own exit code; what a monitor reads is never last night's."""
    data = two_categories_of_which_one_is_too_small(trained, tmp_path / "data")
    night = tmp_path / "night.json"
    night.write_text("last night's")
    arguments = ["--layout", "mvtec", "--work-dir", str(tmp_path), "--json", str(night)]
    arguments += settings_of(trained)
    weights = ["backbone.name=mobilenetv2_100", f"backbone.weights={tmp_path}/no.safetensors"]
    arguments += [part for text in weights for part in ("--set", text)]
    assert jobs.train.main(["--data", str(data), *arguments]) == 4
    printed = capsys.readouterr()
    assert "no.safetensors" in printed.err
    rows = {row["category"]: row for row in json.loads(night.read_text())}
    small, other = (result.category for result in trained.results)
    assert {row["outcome"] for row in rows.values()} == {"failed"}
    assert "5 normal pictures" in rows[small]["decision"]
    assert "no.safetensors" in rows[other]["decision"]
    for name in (small, other):
        assert rows[name]["decision"] in printed.out
    assert jobs.train.main(["--data", str(tmp_path / "none"), *arguments]) == 3
    assert not night.exists(), "there is no table of this night"


@pytest.mark.integration
def test_a_night_in_which_one_category_fails(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_categories_of_which_one_is_too_small(trained, tmp_path / "data")
    night = tmp_path / "night.json"
    arguments = ["--data", str(data), "--layout", "mvtec", "--work-dir", str(tmp_path)]
    arguments += ["--json", str(night), *settings_of(trained)]
    epochs = ["fit.min_steps=1", "fit.flow_epochs=1", "fit.mapper_epochs=1"]
    arguments += [part for text in epochs for part in ("--set", text)]
    assert jobs.train.main(arguments) == 8
    printed = capsys.readouterr()
    small, other = (result.category for result in trained.results)
    assert f"1 of 2 categories failed: {small}" in printed.err
    rows = {row["category"]: row for row in json.loads(night.read_text())}
    assert (rows[small]["outcome"], rows[small]["version"]) == ("failed", None)
    assert (rows[other]["outcome"], rows[other]["version"]) == ("registered", "1")
    assert rows[other]["finished_at"]
    assert rows[other]["decision"].startswith("version 1 is c")
    for name in (small, other):
        (line,) = (each for each in printed.out.splitlines() if each.strip().startswith(name))
        assert rows[name]["outcome"] in line
        assert rows[name]["decision"] in line


def test_score_then_report(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "scores")
    arguments = [trained.factory.archive, "--output", output, *common(trained)]
    arguments += ["--set", "run.failure_budget=0.1"]
    assert jobs.score.main(arguments) == 0
    assert "with an error" in capsys.readouterr().out
    table = pyarrow.dataset.dataset(output).to_table()
    assert table.num_rows == trained.settings.archive + 3
    page = tmp_path / "report.html"
    assert jobs.report.main(["--scores", output, "--output", str(page)]) == 0
    assert page.read_text().count("data:image/webp") > 10


@pytest.mark.integration
def test_too_many_failures_make_a_non_zero_exit_and_keep_the_scores(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "scores")
    code = jobs.score.main([trained.factory.archive, "--output", output, *common(trained)])
    assert code == 8
    assert "status = 'error'" in capsys.readouterr().err
    assert pyarrow.dataset.dataset(output).count_rows() == trained.settings.archive + 3


def test_models_are_listed_shown_and_tried(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    category = trained.results[0].category
    assert cli.main(["models", "list", *common(trained)]) == 0
    assert category in capsys.readouterr().out
    assert cli.main(["models", "list", "--json", *common(trained)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {model["category"] for model in listed} == {r.category for r in trained.results}
    assert cli.main(["models", "show", category, "--json", *common(trained)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["calibration_pictures"] == trained.results[0].held_out
    assert shown["p_value_floor"] == pytest.approx(1 / (trained.results[0].held_out + 1))
    assert shown["lineage"]["pictures_fitted"] == trained.results[0].pictures
    picture = next((Path(trained.factory.root) / category / "test" / "good").iterdir())
    score = ["models", "score", category, str(picture)]
    assert cli.main([*score, "--json", *common(trained)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["score"] > 0
    assert row["calibration_size"] == trained.results[0].held_out
    assert cli.main([*score, "no-such.png", *common(trained)]) == 1
    assert "no-such.png does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script", ["demo", "train", "score", "evaluate", "report", "benchmark", "pretrain"]
)
def test_help_has_an_example(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"jobs.{script}").main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert f"example:\n  python jobs/{script}.py" in capsys.readouterr().out


def test_help_from_the_shell_from_any_folder() -> None:
    command = [sys.executable, str(ROOT / "jobs" / "score.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert "example:\n  python jobs/score.py" in done.stdout


@pytest.mark.integration
def test_a_demo_of_two_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    assert jobs.demo.main(["--folder", str(folder), "--categories", "2"]) == 0
    night = folder / "night-1"
    values = json.loads((night / "evaluation.json").read_text())
    aurocs = {c["category"]: c["image_auroc"] for c in values["categories"]}
    assert len(aurocs) == 2
    assert min(aurocs.values()) >= 0.95, aurocs
    rows = pyarrow.dataset.dataset(night / "scores").to_table()
    assert rows.column("status").to_pylist().count("error") == 3
    assert rows.num_rows == 203
    output = capsys.readouterr().out
    assert "203 files in the archive, 3 of them unreadable" in output
    assert all((night / page).stat().st_size > 10_000 for page in ("report.html", "archive.html"))


@pytest.mark.slow
def test_the_demo_from_the_shell_twice(tmp_path: Path) -> None:
    """Two nights in one folder: every category at 0.95 or better, three rows with an error."""
    command = [sys.executable, str(ROOT / "jobs" / "demo.py"), "--folder", str(tmp_path / "demo")]
    for night in ("night-1", "night-2"):
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        folder = tmp_path / "demo" / night
        values = json.loads((folder / "evaluation.json").read_text())
        aurocs = {c["category"]: c["image_auroc"] for c in values["categories"]}
        assert len(aurocs) == 4
        assert min(aurocs.values()) >= 0.95, aurocs
        rows = pyarrow.dataset.dataset(folder / "scores").to_table()
        assert rows.column("status").to_pylist().count("error") == 3
        assert rows.num_rows == 203
        assert str(folder / "report.html") in done.stdout
        assert "Traceback" not in done.stderr
