"""Names in an archive never become paths: not in listing, scoring, finished scores or report."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import jobs.report
from nfbmr.progress import Progress
from nfbmr.score.dataset import read_scores
from nfbmr.score.run import ScoringRequest, score
from tests.conftest import Trained

QUIET = Progress(quiet=True)


def hostile_names(category: str, outside: Path) -> list[str]:
    """Names that would leave the output if they were joined to a path."""
    return [
        f"{category}/../../../../up.png",
        f"{category}/{outside}/absolute.png",
        f"{category}/x\\..\\..\\windows.png",
        f"{category}/_SUCCESS/../_plan/plan.json.png",
        f"{category}/a::b.png",
        f"{category}/s3:/bucket/key.png",
        f"{outside}/absolute.png",
        "../climbing/up.png",
    ]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (90, 100, 110)).save(buffer, "PNG")
    return buffer.getvalue()


def write_archive(path: Path, names: list[str]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), png())
        return
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(png())
            archive.addfile(member, io.BytesIO(png()))


def files_below(folder: Path, without: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if without not in path.parents)
    return {str(path.relative_to(folder)) for path in found}


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_nothing_is_written_outside_the_output(
    suffix: str, trained: Trained, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tmp_path / "a" / "b" / "c" / f"line7{suffix}"
    archive.parent.mkdir(parents=True)
    names = hostile_names(trained.results[0].category, outside)
    write_archive(archive, names)
    output = tmp_path / "deep" / "er" / "scores"
    before = files_below(tmp_path, output)
    score(ScoringRequest((str(archive),), str(output)), trained.registry, trained.config.run, QUIET)
    scores = read_scores(str(output))
    assert sorted(scores.column("member").to_pylist()) == sorted(names)
    page = output / "report.html"
    assert jobs.report.main(["--scores", str(output), "--output", str(page)]) == 0
    after = files_below(tmp_path, output)
    assert after - before <= {"deep", "deep/er", "deep/er/scores"}
    assert not list(outside.iterdir())
    own = {path.name for path in output.rglob("*")}
    assert not own & {"up.png", "absolute.png", "windows.png", "key.png"}
