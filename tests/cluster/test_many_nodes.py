"""The jobs on a cluster of several nodes with declared GPUs, submitted through Ray's jobs API.

Nodes are processes of this machine; what they offer as a GPU is a number, so the forward passes
run on cores. A node goes and another comes in the middle of each job, and what comes out is what
one node gives.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from ray.cluster_utils import Cluster
from ray.job_submission import JobStatus, JobSubmissionClient

from nfbmr.data.procedural import Factory, FactorySettings, generate_factory
from nfbmr.registry import Registry, default_uri
from nfbmr.score.dataset import read_scores
from nfbmr.score.units import finished_units
from nfbmr.session import _require_token
from tests.cluster.submit_script import load_script
from tests.services.processes import free_ports

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0
SETTINGS = (
    "backbone.image_size_px=128",
    "fit.min_steps=60",
    "calibration.false_alarm_rate=0.1",
    "run.unit_size=4",
    "run.failure_budget=0.1",
    "run.cpus_per_fit=1",
    "run.gpus_per_fit=1",
    "run.gpus_per_actor=1",
)


def loopback(number: int) -> str:
    """An address of its own for every node.

    Not 127.0.0.1, which Ray replaces by the machine's outer address where it connects.
    """
    return f"127.0.0.{number + 2}"


@dataclass
class Nodes:
    """A cluster whose worker nodes come and go, and its jobs API.

    Attributes:
        cluster: a head that offers nothing, and workers.
        client: of the jobs API.
        workers: nodes that are up, oldest first.
        started: how many there have been.
    """

    cluster: Cluster
    client: JobSubmissionClient
    workers: list[object]
    started: int = 0

    def add(self) -> None:
        """Start one more worker node with a declared GPU."""
        self.started += 1
        self.workers.append(
            self.cluster.add_node(
                num_cpus=2,
                num_gpus=1,
                node_ip_address=loopback(self.started),
                object_store_memory=150 * 2**20,
            )
        )

    def have(self, count: int) -> None:
        """Start or stop worker nodes until there are so many."""
        while len(self.workers) < count:
            self.add()
        while len(self.workers) > count:
            self.cluster.remove_node(self.workers.pop())

    def replace_oldest(self, job: str) -> None:
        """Kill the worker node that has been there longest, with everything on it; add another.

        Raises:
            AssertionError: the job had ended before, or nothing of it ran there.
        """
        oldest = self.workers.pop(0)
        assert self.actors_on(oldest), "no actor would have been lost with the node"
        self.cluster.remove_node(oldest, allow_graceful=False)
        status = self.client.get_job_status(job)
        assert status == JobStatus.RUNNING, f"the job was {status.value} when the node went"
        self.add()

    def actors_on(self, node: object) -> list[str]:
        """Classes of the actors that live on a node."""
        answer = requests.get(
            f"{self.client.get_address()}/api/v0/actors",
            params={"limit": "1000", "detail": "true"},
            headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
            timeout=30,
        )
        answer.raise_for_status()
        return [
            actor["class_name"]
            for actor in answer.json()["data"]["result"]["result"]
            if actor["state"] == "ALIVE" and actor["node_id"] == node.node_id  # type: ignore[attr-defined]
        ]

    def submit(self, job: str, *arguments: str) -> str:
        """Submit one of ``jobs/``; returns the submission's id."""
        sets = [part for setting in SETTINGS for part in ("--set", setting)]
        words = [sys.executable, str(ROOT / "jobs" / job), *arguments, "--preset", "small", *sets]
        environment = {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": self.cluster.address}
        return str(
            self.client.submit_job(
                entrypoint=" ".join(words), runtime_env={"env_vars": environment}
            )
        )

    def wait(self, job: str, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for a job's end, or for something to happen before it; whether it happened.

        Raises:
            AssertionError: the job failed, or neither came in time.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if until():
                return True
            status = self.client.get_job_status(job)
            if status == JobStatus.SUCCEEDED:
                return False
            assert not status.is_terminal(), self.client.get_job_logs(job)
            time.sleep(0.2)
        raise AssertionError(f"nothing happened in time:\n{self.client.get_job_logs(job)}")


def wait_for_agent(client: JobSubmissionClient) -> None:
    """Wait until the head takes jobs: its agent comes up after the server that answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.submit_job(entrypoint="true")
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        # As in the manifests, every node, driver and client has the token: that of this process,
        # which may have a session of its own.
        _require_token()
        # A node that was killed is noticed within seconds.
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "node_ip_address": loopback(0),
                "include_dashboard": True,
                "dashboard_host": loopback(0),
                "dashboard_port": 0,
                # A session of this process may have the usual one.
                "dashboard_agent_listen_port": free_ports(1)[0],
                "object_store_memory": 150 * 2**20,
            },
        )
        try:
            address = f"http://{cluster.head_node.address_info['webui_url']}"
            running = Nodes(cluster, JobSubmissionClient(address), [])
            running.add()
            wait_for_agent(running.client)
            yield running
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    settings = FactorySettings(
        categories=2, train=60, test_normal=4, test_defective=4, archive=80, size_px=128
    )
    return generate_factory(tmp_path_factory.mktemp("factory"), settings)


@pytest.fixture(scope="module")
def on_one_node(nodes: Nodes, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and scores of an undisturbed cluster with one worker node."""
    folder = tmp_path_factory.mktemp("one-node")
    work = ("--work-dir", str(folder / "work"))
    nodes.wait(nodes.submit("train.py", "--data", factory.root, "--layout", "mvtec", *work))
    nodes.wait(nodes.submit("score.py", factory.archive, "--output", str(folder / "scores"), *work))
    return folder


def thresholds(work_dir: Path) -> dict[str, float]:
    registry = Registry(default_uri(str(work_dir)))
    names = {version.category for version in registry.list_versions()}
    return {name: registry.load(name).threshold for name in names}


@pytest.mark.slow
def test_a_node_goes_and_one_comes_while_categories_are_fitted(
    nodes: Nodes, factory: Factory, on_one_node: Path, tmp_path: Path
) -> None:
    nodes.have(2)
    table = tmp_path / "table.json"
    job = nodes.submit(
        "train.py",
        *("--data", factory.root, "--layout", "mvtec"),
        *("--work-dir", str(tmp_path / "work"), "--json", str(table)),
    )
    assert nodes.wait(job, lambda: "flow epoch" in nodes.client.get_job_logs(job))
    nodes.replace_oldest(job)
    nodes.wait(job)
    assert [row["outcome"] for row in json.loads(table.read_text())] == ["registered"] * 2
    expected = thresholds(on_one_node / "work")
    assert len(expected) == 2
    assert thresholds(tmp_path / "work") == pytest.approx(expected, rel=1e-3)


def test_a_node_goes_and_one_comes_while_an_archive_is_scored(
    nodes: Nodes, factory: Factory, on_one_node: Path, tmp_path: Path
) -> None:
    output = str(tmp_path / "scores")
    work = str(on_one_node / "work")
    nodes.have(2)
    job = nodes.submit("score.py", factory.archive, "--output", output, "--work-dir", work)
    assert nodes.wait(job, lambda: bool(finished_units(output)))
    nodes.replace_oldest(job)
    nodes.wait(job)
    assert rows(output) == rows(str(on_one_node / "scores"))


@pytest.mark.slow
def test_a_pool_that_may_grow_takes_a_node_that_comes(
    nodes: Nodes, factory: Factory, on_one_node: Path, tmp_path: Path
) -> None:
    output = str(tmp_path / "scores")
    archives = [str(tmp_path / f"production-{number}.tar") for number in range(12)]
    for archive in archives:
        shutil.copyfile(factory.archive, archive)
    nodes.have(1)
    job = nodes.submit(
        "score.py",
        *archives,
        *("--output", output, "--work-dir", str(on_one_node / "work")),
        *("--set", "run.actors_min=1", "--set", "run.actors_max=2"),
    )
    assert nodes.wait(job, lambda: bool(finished_units(output)))
    nodes.add()
    new = nodes.workers[-1]
    assert nodes.wait(job, lambda: any("Scorer" in name for name in nodes.actors_on(new))), (
        "the job was over before its pool of actors had grown"
    )
    nodes.wait(job)
    expected = rows(str(on_one_node / "scores"))
    assert len(rows(output)) == len(expected) * len(archives)


@pytest.mark.parametrize(("token", "code"), [("", 401), (64 * "0", 403), (None, 200)])
def test_the_jobs_server_answers_whoever_has_the_token(
    nodes: Nodes, token: str | None, code: int
) -> None:
    word = os.environ["RAY_AUTH_TOKEN"] if token is None else token
    header = {"Authorization": f"Bearer {word}"} if word else {}
    answer = requests.get(f"{nodes.client.get_address()}/api/jobs/", headers=header, timeout=30)
    assert answer.status_code == code, answer.text


def test_a_submitted_job_is_followed_and_a_second_of_its_name_is_the_first(
    nodes: Nodes, capfd: pytest.CaptureFixture[str]
) -> None:
    submit = load_script()

    def run(name: str, code: str) -> int:
        address = nodes.client.get_address()
        command = ["--name", name, "--address", address, "--", sys.executable, "-c", code]
        result: int = submit.main(command)
        return result

    assert run("good", "print('said by the job')") == 0
    assert "said by the job" in capfd.readouterr().out
    assert run("bad", "raise SystemExit(8)") == submit.ENDED_BADLY
    assert run("lost", "import os; os.kill(os.getpid(), 9)") == submit.ENDED_EARLY
    slow = f"{sys.executable} -c 'import time; time.sleep(20)'"
    first = nodes.client.submit_job(entrypoint=slow, metadata={submit.NAME_KEY: "night"})
    assert submit.running_job(nodes.client.list_jobs(), "night") == first
    assert submit.running_job(nodes.client.list_jobs(), "other") is None
    before = len(nodes.client.list_jobs())
    assert run("night", "print('never')") == 0
    assert len(nodes.client.list_jobs()) == before
    assert f"{first} still runs" in capfd.readouterr().out


def rows(output: str) -> dict[str, tuple[object, ...]]:
    """What does not differ from run to run, by picture; none is there twice."""
    same = ("status", "error", "p_value", "is_anomalous", "threshold", "model_version")
    found = read_scores(output).select(["image_uri", "score", *same]).to_pylist()
    by_name = {
        row["image_uri"]: (row["score"] and f"{row['score']:.4g}", *(row[name] for name in same))
        for row in found
    }
    assert len(by_name) == len(found)
    return by_name
