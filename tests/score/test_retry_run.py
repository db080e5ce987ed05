"""Error rows are scored again, several times in one session, until nothing is left."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nfbmr.progress import Progress
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.retry import retry_failed
from nfbmr.score.run import ScoringRequest, prepare, score
from tests.conftest import Trained


def failed(output: str) -> list[str]:
    table = read_scores(output)
    pairs = zip(table["member"].to_pylist(), table["status"].to_pylist(), strict=True)
    return sorted(member for member, status in pairs if status == "error")


@pytest.mark.integration
def test_what_failed_is_scored_again_until_nothing_is_left(
    trained: Trained, tmp_path: Path
) -> None:
    """Files are away while the run goes, and come back one after the other as they were."""
    category = trained.results[0].category
    pictures, away = tmp_path / "pictures", tmp_path / "away"
    away.mkdir()
    shutil.copytree(Path(trained.factory.root) / category / "test" / "good", pictures / category)
    names = sorted(path.name for path in (pictures / category).iterdir())[:3]
    request = ScoringRequest((str(pictures),), str(tmp_path / "scores"))
    settings = replace(trained.config.run, unit_size=2)
    quiet = Progress(quiet=True)
    plan = prepare(request, request.output, trained.registry, settings, quiet)
    for name in names:
        shutil.move(pictures / category / name, away / name)
    assert score(request, trained.registry, settings, quiet).failed == 3
    assert failed(request.output) == [f"{category}/{name}" for name in names]
    before = {r["member"]: r["score"] for r in read_scores(request.output).to_pylist()}
    for back, left in ((names[:1], 2), (names[1:], 0)):
        for name in back:
            shutil.move(away / name, pictures / category / name)
        assert retry_failed(request, trained.registry, settings, quiet).failed == left
        marker = read_marker(request.output)
        assert marker is not None
        assert marker["failed"] == left == len(failed(request.output))
    after = read_scores(request.output).to_pylist()
    assert len(after) == plan.pictures == len(before)
    assert {row["run_id"] for row in after} == {plan.run_id}
    for row in after:
        known = before[row["member"]]
        assert row["score"] == known if known is not None else row["score"] > 0
    assert retry_failed(request, trained.registry, settings, quiet).scored_now == 0
