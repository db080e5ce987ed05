"""Bad input of any kind: one sentence that says what to do, an exit code, no traceback, no loss."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import jobs.score
from tests.conftest import Trained
from tests.e2e.bad_input_cases import CASES, Main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def places(trained: Trained, tmp_path: Path) -> dict[str, str]:
    """Names for what the arguments below stand for."""
    category = trained.results[0].category
    (tmp_path / "empty").mkdir()
    few = tmp_path / "few" / "bottle" / "normal"
    few.mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(few / f"{number}.png")
    defective = tmp_path / "only-defective" / "bottle" / "defective"
    defective.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(defective / "1.png")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    (tmp_path / "broken.toml").write_text("fit = [")
    (tmp_path / "list.toml").write_text('preset = ["paper"]')
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.txt").write_text("mine")
    (tmp_path / "above" / "strange").mkdir(parents=True)
    (tmp_path / "above" / "strange" / "thesis.txt").write_text("mine")
    return {
        "tmp": str(tmp_path),
        "data": trained.factory.root,
        "archive": trained.factory.archive,
        "work": str(trained.work_dir),
        "category": category,
        "near": category[:-1],
    }


@pytest.mark.parametrize(
    ("main", "line", "code", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_one_sentence_and_an_exit_code(
    main: Main,
    line: str | list[str],
    code: int,
    words: list[str],
    places: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    parts = line.split() if isinstance(line, str) else line
    assert main([part.format(**places) for part in parts]) == code
    captured = capfd.readouterr()
    error = captured.err[captured.err.index("error: ") :]
    for word in words:
        assert word.format(**places) in error, error
    assert "Traceback" not in captured.err + captured.out
    assert error.strip().count("\n") == 0
    assert (Path(places["tmp"]) / "strange" / "thesis.txt").read_text() == "mine"


@pytest.mark.integration
def test_an_output_of_another_run_keeps_its_scores(
    trained: Trained, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    category = places["category"]
    pictures = Path(places["tmp"]) / "pictures" / category
    shutil.copytree(Path(trained.factory.root) / category / "test" / "good", pictures)
    output = ["--output", f"{places['tmp']}/out", "--work-dir", places["work"]]
    assert jobs.score.main([str(pictures.parent), *output]) == 0
    before = sorted((p.name, p.read_bytes()) for p in Path(places["tmp"], "out").rglob("*.parquet"))
    assert before
    assert jobs.score.main([places["archive"], *output]) == 7
    assert "already holds another run" in capsys.readouterr().err
    after = sorted((p.name, p.read_bytes()) for p in Path(places["tmp"], "out").rglob("*.parquet"))
    assert before == after


@pytest.mark.integration
def test_from_the_shell_there_is_no_traceback_either(tmp_path: Path) -> None:
    """A process of its own, without anything this test has set up."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--data", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
