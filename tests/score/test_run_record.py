"""A finished scoring run in MLflow, and a registry that is gone when the scores are done."""

import io
import json
import socket
from pathlib import Path

import pytest

from nfbmr.progress import Progress
from nfbmr.registry import EXPERIMENT, Registry
from nfbmr.score.run_record import record_in_registry
from nfbmr.score.summary import ScoringSummary
from nfbmr.settings import RunSettings
from tests.score.committed_run import QUIET, committed, finished


@pytest.fixture
def summary(tmp_path: Path) -> ScoringSummary:
    plan, schema = committed(str(tmp_path / "scores"), [30, 6], ["a/ü", "bottle"])
    return finished(str(tmp_path / "scores"), plan, schema, RunSettings())


def test_a_run_is_recorded_once_however_often_it_is_said(
    summary: ScoringSummary, tmp_path: Path
) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        record_in_registry(summary, registry, QUIET)
    experiment = registry.client.get_experiment_by_name(EXPERIMENT)
    [run] = registry.client.search_runs([experiment.experiment_id])
    assert run.data.params["sources"] == "['x']"
    assert run.data.params["model/bottle"] == "1"
    assert run.data.metrics["pictures"] == 36
    assert run.data.metrics["failed/unsupported"] == 12
    assert run.data.metrics["drift/bottle/ks"] == summary.drift["bottle"]["ks"]
    assert run.data.metrics["drift/a_2f__fc_/calibration_size"] == 199
    assert run.info.status == "FINISHED"
    [file] = registry.client.list_artifacts(run.info.run_id)
    copy = registry.client.download_artifacts(run.info.run_id, file.path, str(tmp_path))
    assert json.loads(Path(copy).read_text()) == json.loads(json.dumps(summary.as_dict()))


def test_a_registry_that_is_gone_is_a_warning(
    summary: ScoringSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    said = io.StringIO()
    record_in_registry(summary, Registry(f"http://127.0.0.1:{port}"), Progress(said))
    assert "warning: the scores are finished, but not recorded in MLflow" in said.getvalue()
