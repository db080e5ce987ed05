"""Error rows are scored again, several times in one session, until nothing is left."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nfbmr import storage, store_folders
from nfbmr.progress import Progress
from nfbmr.score import retry
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.plan_files import PLAN_FOLDER, PLAN_JSON
from nfbmr.score.retry import retry_failed
from nfbmr.score.run import ScoringRequest, prepare, score
from tests.conftest import Trained


def failed(output: str) -> list[str]:
    table = read_scores(output)
    pairs = zip(table["member"].to_pylist(), table["status"].to_pylist(), strict=True)
    return sorted(member for member, status in pairs if status == "error")


class CutOffError(Exception):
    """Stands for a driver that is killed."""


def cut_off_while_tidying(patch: pytest.MonkeyPatch, *, whole: bool) -> None:
    """The second time that a retry tidies up, which ends it, it comes to nothing, or half way."""
    real, times = retry._tidy, [0]

    def tidy(output: str, retried: str) -> None:
        times[0] += 1
        if times[0] < 2:
            real(output, retried)
            return
        if not whole:
            store_folders.remove_tree(storage.join(retried, PLAN_FOLDER, PLAN_JSON))
        raise CutOffError

    patch.setattr(retry, "_tidy", tidy)


@pytest.mark.integration
def test_what_failed_is_scored_again_until_nothing_is_left(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are away while the run goes, and come back one after the other as they were.

    Each retry is cut off once in its last step, before and in the middle of it.
    """
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
        with monkeypatch.context() as patch:
            cut_off_while_tidying(patch, whole=left == 0)
            with pytest.raises(CutOffError):
                retry_failed(request, trained.registry, settings, quiet)
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
