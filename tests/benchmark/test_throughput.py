"""The whole benchmark on few pictures: kinds of archives, numbers of actors, both numerics."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import jobs.benchmark
from nfbmr.benchmark.peer import time_anomalib
from nfbmr.benchmark.throughput import ThroughputRequest, measure_throughput
from nfbmr.benchmark.throughput_table import throughput_text
from nfbmr.data.layouts import discover
from nfbmr.data.procedural import FactorySettings, generate_factory
from nfbmr.errors import ConfigError
from nfbmr.progress import Progress
from tests.conftest import Trained

QUIET = Progress(quiet=True)


@pytest.mark.integration
@pytest.mark.slow
def test_the_command_ends_with_both_ratios_in_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FactorySettings(categories=1, train=60, test_normal=12, test_defective=12, archive=1)
    data = generate_factory(tmp_path / "factory", settings).root
    arguments = ["throughput", "--data", data, "--layout", "mvtec", "--preset", "small"]
    arguments += ["--image-size", "128", "--pictures", "24", "--work-dir", str(tmp_path / "work")]
    for setting in ("fit.min_steps=20", "calibration.false_alarm_rate=0.1", "run.unit_size=4"):
        arguments += ["--set", setting]
    assert jobs.benchmark.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for ratio in ("job_over_backbone", "job_over_loop", "job_over_allowed"):
        assert result[ratio] > 0


@pytest.mark.slow
def test_everything_in_one_run(trained: Trained, tmp_path: Path) -> None:
    fit = replace(trained.config.fit, flow_epochs=1, mapper_epochs=1, min_steps=20)
    request = ThroughputRequest(
        data=trained.factory.root,
        layout="mvtec",
        categories=None,
        config=replace(trained.config, fit=fit),
        pictures=48,
        work_dir=tmp_path,
        cores=2,
        kinds=("prefix", "zip"),
        workers=(1, 2),
        accuracy=True,
    )
    result = measure_throughput(request, QUIET)
    assert [job.source for job in result.jobs] == [
        "prefix, disk",
        "zip, disk",
        "prefix, disk",
        "prefix, disk",
    ]
    assert [job.actors for job in result.jobs[2:]] == [1, 2]
    assert all(job.pictures == 48 and job.per_s > 0 for job in result.jobs)
    assert all(seconds > 0 for seconds in result.stage_cpu_seconds.values())
    assert {r.category for r in result.numerics} == {c.category for c in trained.results}
    assert result.forward is not None
    text = throughput_text(result)
    assert "what helps is" in text
    assert "scores differ from plain float32" in text


def test_a_missing_peer_is_a_sentence(trained: Trained, tmp_path: Path) -> None:
    samples = discover(trained.factory.root, "mvtec", None)[:4]
    with pytest.raises(ConfigError, match="make peer"):
        time_anomalib(str(tmp_path / "python"), trained.config, samples, tmp_path / "peer")
