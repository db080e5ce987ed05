"""What ``nfbmr-submit`` does with a cluster that is late, falls silent or forgets the job.

The cluster is a server of its own on loopback that speaks the part of Ray's jobs API which is
asked for, and can be made to leave every request without an answer; ``test_many_nodes.py`` has a
real one.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import ray
from aiohttp import web
from ray.dashboard.modules.job.common import JobErrorType
from ray.job_submission import JobDetails

from nfbmr.errors import RegistryError, StoreError, WeightsError, WorkerError
from tests.cluster.submit_script import load_script
from tests.services.processes import free_ports

submit = load_script()
WAITS = submit.Waits(answer_s=0.2, quiet_s=0.2, pause_s=0.02, say_s=0.1)
ENDLESS_S = 10.0


@dataclass
class Jobs:
    """A job server that holds at most one job.

    Attributes:
        port: of loopback.
        submitted: ids of the jobs that were submitted.
        names: of the jobs, by id.
        status: of every job, next; the last one stays.
        exit_code: of every job that has ended.
        error_type: of every job, as Ray names it.
        lines: what a job has printed.
        is_silent: requests are taken and never answered.
        silent_after: so many times the state is told, then nothing is answered.
        asked: how often the state was told.
        is_strange: every request is refused for its token.
        ended: with it, whoever was left without an answer is let go.
        was_waited_for: somebody has waited for an answer as if without end.
    """

    port: int = field(default_factory=lambda: free_ports(1)[0])
    submitted: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    status: list[str] = field(default_factory=lambda: ["RUNNING"])
    exit_code: int | None = 8
    error_type: str | None = None
    lines: str = ""
    is_silent: bool = False
    silent_after: int | None = None
    asked: int = 0
    is_strange: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    was_waited_for: bool = False

    async def leave_waiting(self) -> None:
        try:
            await asyncio.wait_for(self.ended.wait(), ENDLESS_S)
        except TimeoutError:
            self.was_waited_for = True
            self.is_silent, self.silent_after, self.status = False, None, ["FAILED"]

    def details(self, job_id: str) -> dict[str, object]:
        return {
            "type": "SUBMISSION",
            "submission_id": job_id,
            "status": self.status[0],
            "entrypoint": "true",
            "driver_exit_code": self.exit_code,
            "error_type": self.error_type,
            "metadata": {submit.NAME_KEY: self.names[job_id]},
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.is_silent:
            await self.leave_waiting()
        if self.is_strange:
            return web.Response(status=403, text="another token")
        if request.path == "/api/version":
            return web.json_response({"ray_version": ray.__version__})
        if request.path.endswith("/logs/tail"):
            return await self.tail(request)
        if request.method == "POST":
            asked = await request.json()
            job_id = asked.get("submission_id") or "made-up"
            self.submitted.append(job_id)
            self.names[job_id] = asked["metadata"][submit.NAME_KEY]
            return web.json_response({"job_id": job_id, "submission_id": job_id})
        if request.path == "/api/jobs/":
            return web.json_response([self.details(job_id) for job_id in self.names])
        return await self.tell_state(request.path.rpartition("/")[2])

    async def tell_state(self, job_id: str) -> web.Response:
        if self.silent_after is not None and self.asked >= self.silent_after:
            self.is_silent = True
            await self.leave_waiting()
        self.asked += 1
        if job_id not in self.names:
            return web.Response(status=404, text=f"Job {job_id} does not exist")
        found = json.dumps(self.details(job_id))
        self.status = self.status[1:] or self.status
        return web.Response(text=found, content_type="application/json")

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        """All lines, then silence."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.lines)
        await self.leave_waiting()
        return socket

    @contextmanager
    def serving(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application, shutdown_timeout=1.0)

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()

        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(start(), loop).result(10)
            yield
        finally:
            loop.call_soon_threadsafe(self.ended.set)
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def follow(self, *options: str, wait_s: float = 5.0) -> int:
        address = ["--address", f"http://127.0.0.1:{self.port}", "--wait-min", str(wait_s / 60)]
        code: int = submit.main(["--name", "night", *address, *options, "--", "true"], WAITS)
        assert not self.was_waited_for
        return code


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def test_a_cluster_that_takes_requests_and_never_answers_is_left_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = Jobs(is_silent=True)
    with jobs.serving():
        assert jobs.follow(wait_s=0.5) == submit.CLUSTER_LOST
    said = capsys.readouterr()
    assert "has not answered for" in said.err
    assert f"waiting for http://127.0.0.1:{jobs.port}" in said.out
    assert not jobs.submitted


def test_a_head_that_falls_silent_while_the_job_runs_is_left_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No connection ends: what is lost is lost without a word."""
    jobs = Jobs(lines="epoch 1\n", silent_after=1)
    with jobs.serving():
        assert jobs.follow(wait_s=0.5) == submit.CLUSTER_LOST
    said = capsys.readouterr()
    assert "epoch 1" in said.out
    assert "has not answered for" in said.err


@pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("FAILED", submit.ENDED_BADLY)])
def test_a_job_that_prints_nothing_for_long_is_followed_to_its_end(
    end: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(lines="epoch 1\n", status=["RUNNING", "RUNNING", end])
    with jobs.serving():
        assert jobs.follow() == code
    assert jobs.asked >= 3
    assert capsys.readouterr().out.count("epoch 1") == 1, "lines are printed once"


def test_a_head_that_is_not_there_yet_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(status=["SUCCEEDED"])
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(jobs.follow(wait_s=20.0)))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive(), "nobody listened, and nothing else was to be done"
    with jobs.serving():
        waiting.join(20)
    assert codes == [0]
    assert "waiting for" in capsys.readouterr().out


def test_a_head_that_was_started_anew_has_forgotten_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = Jobs()

    with jobs.serving():
        timer = threading.Timer(0.3, jobs.names.clear)
        timer.start()
        assert jobs.follow() == submit.CLUSTER_LOST
        timer.join()
    assert "does not know made-up any more" in capsys.readouterr().err


def test_a_repeated_pod_follows_the_submission_of_the_first_even_when_it_has_ended() -> None:
    jobs = Jobs(status=["FAILED"])
    with jobs.serving():
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY
        assert jobs.submitted == ["night-1"]
        jobs.follow("--id", "night-2")
    assert jobs.submitted == ["night-1", "night-2"]


@pytest.mark.parametrize("exit_code", [4, 6, 9, 10, -9, 137, None])
def test_what_may_pass_is_submitted_once_more_by_a_repeated_pod(exit_code: int | None) -> None:
    jobs = Jobs(status=["FAILED"], exit_code=exit_code)
    with jobs.serving():
        for _ in range(3):
            assert jobs.follow("--id", "night-1") == submit.ENDED_EARLY
        jobs.status = ["RUNNING", "SUCCEEDED"]
        assert jobs.follow("--id", "night-1") == 0, "whoever lost the last one follows it"
    assert jobs.submitted == ["night-1", "night-1.2", "night-1.3"]


def test_an_attempt_that_ended_for_good_is_the_last_one() -> None:
    jobs = Jobs(status=["FAILED"], exit_code=10)
    with jobs.serving():
        assert jobs.follow("--id", "night-1") == submit.ENDED_EARLY
        jobs.exit_code = 8
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY
        assert jobs.follow("--id", "night-11") == submit.ENDED_BADLY
    assert jobs.submitted == ["night-1", "night-11"]


def test_what_a_person_stopped_is_left_alone() -> None:
    jobs = Jobs(status=["STOPPED"], exit_code=None)
    with jobs.serving():
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY
    assert jobs.submitted == ["night-1"]


@pytest.mark.parametrize("error_type", sorted(submit.NEVER_BEGAN))
def test_what_could_not_be_set_up_is_not_submitted_again(error_type: str) -> None:
    assert error_type in set(JobErrorType)
    jobs = Jobs(status=["FAILED"], exit_code=None, error_type=error_type)
    with jobs.serving():
        assert jobs.follow("--id", "night-1") == submit.ENDED_BADLY


def test_the_codes_that_may_pass_are_those_of_the_jobs() -> None:
    passing = (WeightsError, RegistryError, WorkerError, StoreError)
    assert {error.exit_code for error in passing} == submit.MAY_PASS


def test_attempts_are_counted_past_nine() -> None:
    jobs = [
        JobDetails(type="SUBMISSION", submission_id=job_id, status="FAILED", entrypoint="true")
        for job_id in ("n.10", "n", "n.9", "n.2", "n.x", "other")
    ]
    found = [job.submission_id for job in submit.attempts(jobs, "n")]
    assert found == ["n", "n.2", "n.9", "n.10"]


def test_a_token_that_the_cluster_refuses_is_not_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = Jobs(is_strange=True)
    with jobs.serving():
        assert jobs.follow(wait_s=60.0) == submit.CLUSTER_LOST
    said = capsys.readouterr()
    assert "refuses the token" in said.err
    assert "waiting for" not in said.out


def test_a_job_of_the_same_name_that_runs_is_followed_whatever_its_id() -> None:
    jobs = Jobs(names={"yesterday": "night"}, status=["RUNNING", "RUNNING", "SUCCEEDED"])
    with jobs.serving():
        assert jobs.follow("--id", "today") == 0
    assert not jobs.submitted
