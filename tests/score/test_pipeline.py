"""Where pictures are decoded and how many actors there are changes no row."""

from dataclasses import replace
from pathlib import Path

import pytest

from nfbmr.model.precision import REFERENCE
from nfbmr.progress import Progress
from nfbmr.score.dataset import read_scores
from nfbmr.score.run import ScoringRequest, score
from tests.conftest import Trained


@pytest.mark.integration
def test_decoding_in_tasks_and_a_pool_that_may_grow_give_the_same_rows(
    trained: Trained, tmp_path: Path
) -> None:
    request = ScoringRequest((trained.factory.archive,), str(tmp_path / "actors"))
    other = replace(request, output=str(tmp_path / "tasks"))
    settings = replace(trained.config.run, decode="tasks", actors_min=1, forward=REFERENCE)
    quiet = Progress(quiet=True)
    here = score(request, trained.registry, trained.config.run, quiet)
    there = score(other, trained.registry, settings, quiet)
    assert (here.pictures, here.failed) == (there.pictures, there.failed) == (43, 3)
    columns = ["image_uri", "category", "status", "error", "content_hash", "image_height"]
    order = [("image_uri", "ascending")]
    one, two = (read_scores(run.output).sort_by(order) for run in (here, there))
    assert one.select(columns).equals(two.select(columns))
    scores = [table.column("score").drop_null().to_pylist() for table in (one, two)]
    assert len(scores[0]) == 40
    assert scores[0] == pytest.approx(scores[1], rel=0.02)
    assert here.forward is not None
    assert here.forward["score_share"] < 0.02
    assert there.forward is None
    for summary in (here, there):
        assert all(seconds > 0 for seconds in summary.seconds_by_stage.values())
        assert all(seconds > 0 for seconds in summary.cpu_seconds_by_stage.values())
