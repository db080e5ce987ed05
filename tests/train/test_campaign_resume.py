"""kill -9 of the driver or of a node: the same command goes on, and the losses are the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nfbmr.registry import Registry, default_uri
from nfbmr.train.fit_state import StageState
from tests.conftest import Trained

ROOT = Path(__file__).parents[2]
# Minutes each: make test-slow.
pytestmark = [pytest.mark.integration, pytest.mark.slow]
TIMEOUT_S = 500
# So many that the workers of a killed driver, which live on for seconds, do not finish the fit.
MAPPER_EPOCHS = 100


def command(trained: Trained, work_dir: Path) -> list[str]:
    """One category after the other, each keeping its state after every epoch."""
    settings = ["backbone.image_size_px=128", "calibration.false_alarm_rate=0.1"]
    settings += ["fit.min_steps=1", "fit.flow_epochs=25", f"fit.mapper_epochs={MAPPER_EPOCHS}"]
    settings += ["night.checkpoint_interval_s=0", "run.cpus_per_fit=2"]
    sets = [part for setting in settings for part in ("--set", setting)]
    script = [sys.executable, str(ROOT / "jobs" / "train.py"), "--data", trained.factory.root]
    places = ["--work-dir", str(work_dir), "--json", str(work_dir / "night.json")]
    return [*script, "--layout", "mvtec", "--preset", "small", *places, *sets]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        return subprocess.Popen(arguments, stdout=output, stderr=output, env=clean)


def losses(work_dir: Path) -> dict[str, dict[str, list[float]]]:
    """By category; every category must have exactly one version."""
    registry = Registry(default_uri(str(work_dir)))
    versions = registry.list_versions()
    assert len({v.category for v in versions}) == len(versions)
    return {v.category: registry.losses(v) for v in versions}


def kept_state(path: Path) -> StageState:
    state = StageState.from_bytes(path.read_bytes())
    assert state is not None
    return state


def wait_for_second_fit(process: subprocess.Popen[bytes], nights: Path) -> None:
    """Until one category is finished and the other has some epochs behind it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the command ended before it could be killed"
        if list(nights.glob("*/*.result.json")):
            for path in nights.glob("*/*/fit.safetensors"):
                state = kept_state(path)
                if state.stage == "mapper" and state.epoch >= 3:
                    return
        time.sleep(0.05)
    raise TimeoutError


def test_a_killed_driver_goes_on_and_repeats_nothing(trained: Trained, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    log = tmp_path / "log"
    assert start(command(trained, undisturbed), log).wait(TIMEOUT_S) == 0, log.read_text()

    process = start(command(trained, killed), log)
    wait_for_second_fit(process, killed / "checkpoints" / "nights")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (finished,) = losses(killed)
    (state,) = map(kept_state, (killed / "checkpoints" / "nights").glob("*/*/fit.safetensors"))
    assert 3 <= state.epoch < MAPPER_EPOCHS

    process = start(command(trained, killed), log)
    assert process.wait(TIMEOUT_S) == 0, log.read_text()
    said = log.read_text()
    assert "1 of 2 categories are finished" in said
    assert f"{finished}: flow epoch" not in said
    assert f"{finished}: mapper epoch" not in said
    other = next(r.category for r in trained.results if r.category != finished)
    assert f"{other}: flow epoch" not in said
    assert f"{other}: mapper epoch {MAPPER_EPOCHS}/{MAPPER_EPOCHS}" in said

    rows = json.loads((killed / "night.json").read_text())
    assert [row["outcome"] for row in rows] == ["registered", "registered"]
    expected = losses(undisturbed)
    assert losses(killed).keys() == expected.keys()
    for category, curves in losses(killed).items():
        for name, values in curves.items():
            assert values == pytest.approx(expected[category][name], rel=1e-6), (category, name)
    assert not list((killed / "checkpoints" / "nights").iterdir()), "a finished night is removed"


def test_a_lost_node_is_made_up_for_on_another(trained: Trained, tmp_path: Path) -> None:
    """Ray Train starts the worker on another node, which goes on from the last state."""
    told = lose_a_node(trained, tmp_path, "fit")
    assert told["lost_after"][0] == "mapper"
    assert len(told["undisturbed"]) == 405
    assert told["disturbed"] == told["undisturbed"]


def test_a_node_lost_while_features_are_computed_costs_no_picture(
    trained: Trained, tmp_path: Path
) -> None:
    """None comes in its place: what it had in hand would wait for it without end."""
    told = lose_a_node(trained, tmp_path, "features")
    assert 0 < told["lost_after"][0] < len(told["pictures"])
    assert told["entries"] == told["pictures"]
    assert not told["errors"]


def lose_a_node(trained: Trained, folder: Path, part: str) -> dict[str, Any]:
    script = Path(__file__).with_name("lose_a_node.py")
    arguments = [sys.executable, str(script), str(trained.factory.root), str(folder), part]
    log = folder / "log"
    assert start(arguments, log).wait(TIMEOUT_S) == 0, log.read_text()
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return told
