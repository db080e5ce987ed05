"""The requests that the scale model reckons with are those that a run sends."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from nfbmr.benchmark.scale import Cluster, store_requests
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.progress import Progress
from nfbmr.score.run import ScoringRequest, score
from tests.benchmark.test_scale import COSTS
from tests.conftest import Trained
from tests.security.s3_requests import Recorder

# Half a minute: make test-slow.
pytestmark = [pytest.mark.slow, pytest.mark.integration]
UNIT_SIZE = 4
FEW, MANY = 8, 40


def requests_of_a_run(
    pictures: int, trained: Trained, bucket: str, recorder: Recorder
) -> Counter[str]:
    """Score so many pictures from a prefix into another; what was asked of the store, by kind."""
    store = fsspec.filesystem("s3")
    category = trained.results[0].category
    entries = [e for e in list_archive(trained.factory.archive).entries if category in e.member]
    data = read_entry(entries[0])
    source, output = f"{bucket}/{pictures}/in", f"{bucket}/{pictures}/out"
    store.pipe({f"{source}/{category}/{n:03d}.png": data for n in range(pictures)})
    settings = replace(trained.config.run, unit_size=UNIT_SIZE, failure_budget=1.0)
    recorder.taken()
    summary = score(
        ScoringRequest((source,), output), trained.registry, settings, Progress(quiet=True)
    )
    assert (summary.pictures, summary.failed) == (pictures, 0)
    return Counter(request.kind for request in recorder.taken())


def test_what_more_pictures_cost_is_what_the_model_says(
    trained: Trained, s3_server: ThreadedMotoServer, s3_bucket: str, tmp_path: Path
) -> None:
    """The difference of two runs: without what every run asks for once."""
    with Recorder.before(s3_server) as recorder:
        few, many = (requests_of_a_run(n, trained, s3_bucket, recorder) for n in (FEW, MANY))
    seen = {kind.lower(): many[kind] - few[kind] for kind in ("GET", "HEAD", "PUT")}
    reckoned = {
        kind: store_requests(MANY, COSTS, Cluster(1, unit_size=UNIT_SIZE))[kind]
        - store_requests(FEW, COSTS, Cluster(1, unit_size=UNIT_SIZE))[kind]
        for kind in seen
    }
    assert (seen["head"], seen["put"]) == (reckoned["head"], reckoned["put"]), (seen, reckoned)
    # A process that has read a row group of the plan finds its other units there.
    units = (MANY - FEW) // UNIT_SIZE
    assert MANY - FEW + units <= seen["get"] <= reckoned["get"], (seen, reckoned)
