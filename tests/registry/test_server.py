"""A real MLflow server with PostgreSQL and an object store that only the server can reach."""

import base64
import io
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray.train import Checkpoint

from nfbmr import cli
from nfbmr.config import load_config
from nfbmr.errors import RegistryError
from nfbmr.pyfunc import DetectorModel
from nfbmr.registry import CHAMPION, PREVIOUS, Registry
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.ray_fit import Fitted
from nfbmr.train.registration import register, register_finished
from tests.registry.finished_fit import finished_fit, make_detector
from tests.services.mlflow_server import running_mlflow
from tests.services.processes import Process, free_ports
from tests.services.swift import ObjectStore

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
WORKERS = 8


@pytest.fixture
def server(
    postgres_uri: str, swift: ObjectStore, swift_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Its clients have no credentials of the store."""
    with running_mlflow(postgres_uri, f"{swift_bucket}/mlflow", swift.environment) as uri:
        for name in swift.environment:
            monkeypatch.delenv(name, raising=False)
        yield uri


def test_register_judge_resolve_load_and_roll_back(server: str, tmp_path: Path) -> None:
    registry = Registry(server)
    registry.prepare()
    for night in (1, 2):
        fit = finished_fit(tmp_path / str(night), night=night)
        version, decision = register_finished(fit, registry, 0)
        assert version.source.startswith("mlflow-artifacts:")
        assert decision.promote, decision.reason
    assert decision.against == "1"
    champion = registry.resolve("bottle", CHAMPION)
    assert champion.version == "2"
    assert registry.load("bottle").describe() == {**fit.description}
    kept = registry.decision(champion)
    assert kept is not None
    assert kept["numbers"]["agreement"] == pytest.approx(1.0)
    assert registry.read_file(champion, "losses.png") is not None
    assert registry.read_file(champion, "no such file") is None
    assert set(registry.losses(champion)) == {"flow_loss"}
    assert registry.rollback("bottle").champion == "1"
    assert registry.resolve("bottle", PREVIOUS).version == "2"


WORKER = """
import sys
from pathlib import Path
from nfbmr.registry import Registry
from nfbmr.train.finished import FinishedFit
from nfbmr.train.registration import register_finished

print("ready", flush=True)
sys.stdin.readline()
fit = FinishedFit.load(Path(sys.argv[2]))
register_finished(fit, Registry(sys.argv[1]), 60)
"""


def test_many_workers_register_at_once(server: str, tmp_path: Path) -> None:
    """Two nights of four categories at the same moment, none of which exists yet."""
    fits = []
    for number in range(WORKERS):
        category, night = f"category{number % 4}", 1 + number // 4
        fits.append(finished_fit(tmp_path / str(number), category, night=night))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, server, str(fit.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for fit in fits
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=300)
        assert worker.returncode == 0
    registry = Registry(server)
    for number in range(4):
        category = f"category{number}"
        assert len(registry.list_versions(category)) == 2
        steps = registry.promotions(category)
        assert [step.replaces for step in steps] == [None, *[s.champion for s in steps[:-1]]]
        later = registry.resolve(category, CHAMPION)
        assert later.tags["nfbmr.fitted_at"].startswith("2026-11-02")


def test_a_server_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    database, port = f"sqlite:///{tmp_path}/mlflow.db", free_ports(1)[0]
    registry = Registry(f"http://127.0.0.1:{port}")
    fit = finished_fit(tmp_path / "fit")
    with running_mlflow(database, str(tmp_path / "artifacts"), {}, port):
        registry.prepare()
    calls: list[float] = []
    started = time.monotonic()

    def attempt() -> str:
        calls.append(time.monotonic() - started)
        if len(calls) == 2:
            # Gone for the first two attempts; from here on it runs.
            running.__enter__()
        return register_finished(fit, registry, 0)[0].version

    running = running_mlflow(database, str(tmp_path / "artifacts"), {}, port)
    try:
        assert registry.patiently(attempt, patience_s=120) == "1"
    finally:
        running.__exit__(None, None, None)
    assert len(calls) >= 2


def test_a_detector_kept_while_the_server_was_gone_is_registered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database, port = f"sqlite:///{tmp_path}/mlflow.db", free_ports(1)[0]
    uri = f"http://127.0.0.1:{port}"
    fit = finished_fit(tmp_path / "fit")
    config = load_config(None, ["run.registry_patience_s=3"])
    task = CategoryTask("bottle", config, "", "", {}, [], [], [])
    fitted = Fitted("bottle", Checkpoint.from_directory(fit.folder), fit.report)
    with pytest.raises(RegistryError, match="is kept in") as caught:
        register(fitted, task, Registry(uri), str(tmp_path / "unregistered"))
    command = shlex.split(str(caught.value).partition("register it with: nfbmr ")[2])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with running_mlflow(database, str(tmp_path / "artifacts"), {}, port):
        assert cli.main(command) == 0
        assert "is champion" in capsys.readouterr().out
        assert Registry(uri).load("bottle").describe() == fit.description


def test_mlflow_models_serve_answers_a_request_with_a_picture(server: str, tmp_path: Path) -> None:
    register_finished(finished_fit(tmp_path / "fit"), Registry(server), 0)
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    options = ["--model-uri", "models:/nfbmr-bottle@champion", "--host", "127.0.0.1"]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    process = Process([*command, *options, "--port", str(port)], tmp_path / "log", environment)
    try:
        process.wait_for_port(port)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(
                {"dataframe_split": {"columns": ["image"], "data": [[picture], ["x"]]}}
            ).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            rows = json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]
    finally:
        process.end()
    expected = DetectorModel(make_detector()).predict([buffer.getvalue()])
    assert [row["status"] for row in rows] == ["ok", "error"]
    assert rows[0]["score"] == pytest.approx(expected["score"][0], rel=1e-5)
    assert rows[1]["score"] is None
