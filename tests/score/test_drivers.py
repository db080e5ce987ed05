"""The scoring job as processes: several drivers at once, counters that Prometheus reads."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from nfbmr.score.dataset import read_scores
from tests.conftest import Trained

ROOT = Path(__file__).parents[2]


def start(trained: Trained, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs" / "score.py"), trained.factory.archive]
    command += ["--output", str(output), "--work-dir", str(trained.work_dir), *more]
    command += ["--set", "run.unit_size=2", "--set", "run.output.rows_per_file=10"]
    command += ["--set", "run.failure_budget=1", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(driver: subprocess.Popen[str]) -> dict[str, object]:
    out, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    summary: dict[str, object] = json.loads(out)
    return summary


def rows(output: Path) -> list[dict[str, object]]:
    table: pa.Table = read_scores(str(output)).sort_by("image_uri")
    rounded = table.drop_columns(["run_id", "scored_at", "anomaly_map"]).to_pylist()
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rounded]


@pytest.mark.integration
@pytest.mark.slow  # A minute and a half each.
@pytest.mark.parametrize("partitioned", ["false", "true"])
def test_drivers_that_work_on_one_output_at_once_leave_the_rows_of_one(
    trained: Trained, tmp_path: Path, partitioned: str
) -> None:
    """They plan, score, merge and publish side by side; neither fails, nothing is there twice."""
    arranged = ("--set", f"run.output.partition_by_category={partitioned}")
    drivers = [start(trained, tmp_path / "both", *arranged) for _ in range(2)]
    summaries = [end(driver) for driver in drivers]
    end(start(trained, tmp_path / "one", *arranged))
    assert rows(tmp_path / "both") == rows(tmp_path / "one")
    assert len({row["image_uri"] for row in rows(tmp_path / "both")}) == 43
    assert len(set(read_scores(str(tmp_path / "both")).column("run_id").to_pylist())) == 1
    for summary in summaries:
        assert (summary["pictures"], summary["failed"]) == (43, 3)
    left = {path.name for path in (tmp_path / "both").iterdir()}
    assert left == {"data", "_plan", "_SUCCESS", "_summary.json"}


SCRAPED_RUN = """
import json, sys, time, urllib.request
import ray
from nfbmr.config import load_config
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.run import ScoringRequest, score
from nfbmr.session import ray_session

archive, output, registry = sys.argv[1:]
with ray_session():
    request = ScoringRequest((archive,), output)
    # The actors report when they end; what they counted stays on the node's page for a while.
    config = load_config(None, ["run.unit_size=8"], "small")
    summary = score(request, Registry(registry), config.run, Progress(quiet=True))
    [node] = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    page = ""
    deadline = time.monotonic() + 60
    while "ray_nfbmr_stage_cpu_seconds" not in page and time.monotonic() < deadline:
        time.sleep(1)
        page = urllib.request.urlopen(address, timeout=10).read().decode()
print("RESULT" + json.dumps([summary.as_dict(), page]))
"""


@pytest.mark.integration
def test_prometheus_reads_what_a_run_counted(trained: Trained, tmp_path: Path) -> None:
    arguments = [trained.factory.archive, str(tmp_path / "scores"), trained.registry.uri]
    command = [sys.executable, "-c", SCRAPED_RUN, *arguments]
    environment = {"PYTHONPATH": str(ROOT), "RAY_enable_metrics_collection": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    summary, page = json.loads(line.removeprefix("RESULT"))
    assert total(page, "nfbmr_pictures_scored") == summary["pictures"] - summary["failed"] == 40
    for kind, count in summary["failed_by_kind"].items():
        assert total(page, "nfbmr_pictures_failed", error_kind=kind) == count
    assert total(page, "nfbmr_fetched_bytes") == summary["fetched_bytes"] > 0
    for name in ("fetch", "decode", "forward", "heads", "commit"):
        counted = total(page, "nfbmr_stage_seconds", stage=name)
        assert counted == pytest.approx(summary["seconds_by_stage"][f"{name}_s"], rel=1e-3)
        assert total(page, "nfbmr_stage_cpu_seconds", stage=name) > 0


def total(page: str, name: str, **labels: str) -> float:
    """Sum of a counter over all actors, from Prometheus' text format."""
    values = []
    for line in page.splitlines():
        found = re.fullmatch(rf"ray_{name}(?:_total)?\{{(.*)\}} (\S+)", line)
        if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
            values.append(float(found[2]))
    assert values, f"{name} {labels} is not on the page"
    return sum(values)
