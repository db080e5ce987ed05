"""The files for machines without Kubernetes, and for submitting jobs."""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import start

import jobs.evaluate
import jobs.report
import jobs.score
import jobs.train
from nfbmr import __version__
from nfbmr.config import load_config
from nfbmr.process_memory import KEEP_FREED_MEMORY
from tests.cluster.manifests import CLUSTER

README = (CLUSTER / "README.md").read_text()
SCHEMA = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
JOBS = {
    "train": jobs.train._parser,
    "score": jobs.score._parser,
    "evaluate": jobs.evaluate._parser,
    "report": jobs.report._parser,
}


@pytest.fixture
def launcher() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CLUSTER / "launcher.yaml").read_text())
    return values


def test_the_launcher_file_fits_rays_own_schema(launcher: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(launcher, schema)
    damaged = {**copy.deepcopy(launcher), "head_start_ray_command": []}
    with pytest.raises(jsonschema.ValidationError, match="head_start_ray_command"):
        jsonschema.validate(damaged, schema)
    validate_config(prepare_config(launcher))


def ray_start(command: str) -> dict[str, str | bool]:
    """The options of the ``ray start`` in a command line."""
    words = shlex.split(command.replace("~", "/home/nfbmr"))
    words = words[next(i for i, word in enumerate(words) if word.endswith("bin/ray")) + 1 :]
    assert words[0] == "start"
    options: dict[str, str | bool] = {}
    for word in words[1:]:
        name, has_value, value = word.partition("=")
        options[name] = value if has_value else True
    return options


def test_the_start_commands_are_options_of_ray_with_token_and_loopback(
    launcher: dict[str, Any],
) -> None:
    known = {option for parameter in start.params for option in parameter.opts}
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        command = launcher[name][-1]
        assert set(ray_start(command)) <= known
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN_PATH=" in command
        assert "RAY_AUTH_TOKEN=" not in command
    head = ray_start(launcher["head_start_ray_commands"][-1])
    assert head["--dashboard-host"] == "127.0.0.1"


def test_the_launcher_installs_the_lock_and_our_wheel(launcher: dict[str, Any]) -> None:
    commands = "\n".join(launcher["setup_commands"])
    assert "--require-hashes" in commands
    assert f"nfbmr-{__version__}-py3-none-any.whl" in commands
    for source in launcher["file_mounts"].values():
        assert source.startswith(("~", "dist")) or (CLUSTER.parent / source).exists()


def test_the_launchers_head_names_every_file_that_its_commands_take_for_granted(
    launcher: dict[str, Any],
) -> None:
    text = (CLUSTER / "launcher.yaml").read_text()
    before = text[: text.index("cluster_name:")]
    commands = " ".join([*launcher["setup_commands"], *launcher["worker_start_ray_commands"]])
    made = ("~/nfbmr/venv", *launcher["file_mounts"])
    for path in re.findall(r"~/[\w./-]+", commands):
        assert path.startswith(made) or path in before, f"nobody says who makes {path}"
    assert "~/nfbmr/environment" in before
    assert "MLFLOW_TRACKING_URI" in before


def test_the_runtime_environment_is_one_that_ray_takes() -> None:
    values = yaml.safe_load((CLUSTER / "runtime-env.yaml").read_text())
    environment = RuntimeEnv(**values)
    assert environment.env_vars() == values["env_vars"]
    with pytest.raises(Exception, match=r"env_vars|str"):
        RuntimeEnv(env_vars={"A": 1})
    assert set(values) <= RuntimeEnv.known_fields
    # The jobs set these themselves; two different values would make Ray refuse the job.
    assert not set(values["env_vars"]) & set(KEEP_FREED_MEMORY)


def job_lines(text: str) -> list[list[str]]:
    """Every call of a job in the shell examples of a text, as words."""
    joined = re.sub(r"\\\n\s*(#\s*)?", "", text)
    lines = re.findall(r"python (?:jobs/|-m jobs\.)(\w+)(?:\.py)?([^\n`]*)", joined)
    return [[name, *shlex.split(rest, comments=True)] for name, rest in lines]


@pytest.mark.parametrize("file", ["README.md", "runtime-env.yaml"])
def test_every_job_in_an_example_exists_and_takes_its_arguments(file: str) -> None:
    text = (CLUSTER / file).read_text()
    for name, *arguments in job_lines(text):
        assert (CLUSTER.parent / "jobs" / f"{name}.py").exists(), name
        if name in JOBS and arguments and "…" not in arguments:
            parsed = JOBS[name]().parse_args(arguments)
            load_config(None, getattr(parsed, "overrides", []))


def test_the_examples_count_on_no_more_gpus_than_the_launcher_has_workers(
    launcher: dict[str, Any],
) -> None:
    workers = len(launcher["provider"]["worker_ips"])
    given = [w for line in job_lines(README) for w in line if w.startswith("run.gpus=")]
    assert given
    assert all(int(word.partition("=")[2]) <= workers for word in given)


def test_the_readme_speaks_of_every_file() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file() and path.name != "README.md" and "__pycache__" not in path.parts:
            assert path.name in README, f"README.md does not say what {path.name} is for"
