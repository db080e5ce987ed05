#!/opt/nfbmr/bin/python
"""Submit a job to a Ray cluster under a name, and follow it to its end.

A job of the same name that still runs is followed instead: a scheduler that loses its pod, or comes
round again before the night is over, never starts a second one beside the first. With an --id, the
job of that id is followed even when it has ended meanwhile: a repeated pod tells how it ended.

A job that ended by what may pass (a store, a registry or workers out of reach, a signal) gives the
exit code 5: a scheduler may repeat the command, and with an --id the cluster gets the job again as
ID.2, ID.3 and so on. Any other bad end is 3, and nothing is submitted again.

Nothing is waited for without end. A cluster that does not answer is asked again for --wait-min
minutes, before the job is submitted and while it runs; then, or when the cluster has forgotten the
job, the exit code is 4, and a scheduler may repeat the command.

The cluster's address and token come from the environment: RAY_ADDRESS, RAY_AUTH_MODE and
RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

NAME_KEY = "nfbmr-job"
ENDED_BADLY = 3
CLUSTER_LOST = 4
ENDED_EARLY = 5

MAY_PASS = frozenset({4, 6, 9, 10})
"""Exit codes of the jobs: weights, registry, workers, store (``nfbmr/errors.py``)."""

NEVER_BEGAN = frozenset({"RUNTIME_ENV_SETUP_FAILURE", "JOB_ENTRYPOINT_COMMAND_START_ERROR"})
"""What Ray calls a wrong runtime environment and a command that is none."""

Answer = TypeVar("Answer")


class ClusterLostError(Exception):
    """The cluster does not answer, does not know the token, or has forgotten the job."""


@dataclass(frozen=True)
class Waits:
    """How long is waited for what, seconds.

    Attributes:
        answer_s: for one request to be answered.
        quiet_s: for a line of the job, until its state is asked for.
        pause_s: between two tries.
        say_s: between two lines that say that the cluster is being waited for.
    """

    answer_s: float = 60.0
    quiet_s: float = 60.0
    pause_s: float = 2.0
    say_s: float = 60.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nfbmr-submit",
        description=__doc__,
        epilog="example:\n  nfbmr-submit --name night -- python -m jobs.train --data s3://factory/parts",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="two jobs of one name never run at once")
    parser.add_argument("--id", help="of this submission: the cluster takes it once")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS", "http://127.0.0.1:8265"),
        help="of the cluster's job server (default: $RAY_ADDRESS, else %(default)s)",
    )
    parser.add_argument(
        "--wait-min",
        type=float,
        default=30.0,
        help="minutes in which a cluster that does not answer is asked again (%(default)g)",
    )
    parser.add_argument("entrypoint", nargs="+", help="the command to run on the cluster")
    return parser


class _Client(JobSubmissionClient):  # type: ignore[misc]  # Ray's packages are not looked into
    """Ray's client, whose own requests wait for ever for an answer."""

    def __init__(self, address: str, answer_s: float) -> None:
        self._answer_s = answer_s
        super().__init__(address)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=self._answer_s, **options)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered later: the head starts, or is out of reach."""
    is_refusal = isinstance(error, ValueError)  # of an address that is none
    return (isinstance(error, OSError) and not is_refusal) or "status code 5" in str(error)


def _patiently(ask: Callable[[], Answer], address: str, wait_s: float, waits: Waits) -> Answer:
    """What a request to the cluster answers, asked again for so long, with a line now and then.

    Raises:
        ClusterLostError: it did not answer in that time.
    """
    began = said = time.monotonic()
    while True:
        try:
            return ask()
        except AuthenticationError as error:
            raise ClusterLostError(f"The cluster at {address} refuses the token: {error}") from None
        except (OSError, RuntimeError) as error:
            if not _may_pass(error):
                raise
            now = time.monotonic()
            if now - began >= wait_s:
                raise ClusterLostError(
                    f"The cluster at {address} has not answered for {(now - began) / 60:.1f} "
                    f"minutes ({type(error).__name__}: {error}). See whether its head runs "
                    "(kubectl get pods --selector ray.io/node-type=head); the same command again "
                    "goes on."
                ) from error
            if now - said >= waits.say_s:
                said = now
                print(f"waiting for {address}: {type(error).__name__}: {error}", flush=True)
        time.sleep(waits.pause_s)


def ended_early(job: JobDetails) -> bool:
    """Whether a job ended by something that may be over when the same command goes on.

    A driver that a signal ended has a code below zero or, where a shell stands between, above 128;
    one that was lost with its node has none. What a person stopped is not taken up again, nor is
    what could not even be set up.
    """
    code = job.driver_exit_code
    if job.status != JobStatus.FAILED or job.error_type in NEVER_BEGAN:
        return False
    return code is None or not 0 <= code <= 128 or code in MAY_PASS


def attempts(jobs: Sequence[JobDetails], submission_id: str) -> list[JobDetails]:
    """The jobs of an id and of its further attempts, in order."""
    number = re.compile(re.escape(submission_id) + r"(?:\.(\d+))?")
    found = [(number.fullmatch(job.submission_id or ""), job) for job in jobs]
    numbered = [(int(match[1] or 1), job) for match, job in found if match]
    return [job for _, job in sorted(numbered, key=lambda pair: pair[0])]


def running_job(jobs: Sequence[JobDetails], name: str) -> str | None:
    """The id of the job of this name that has not ended."""
    for job in jobs:
        has_name = (job.metadata or {}).get(NAME_KEY) == name
        if job.submission_id and has_name and not job.status.is_terminal():
            return str(job.submission_id)
    return None


def _begin(arguments: argparse.Namespace, waits: Waits) -> tuple[JobSubmissionClient, str]:
    """Submit the job, or find it: the client and the job's id."""
    client = _Client(arguments.address, waits.answer_s)
    # Looked for again on every try: a request that was not answered may have been heard.
    jobs = client.list_jobs()
    before = attempts(jobs, arguments.id) if arguments.id else []
    job_id = running_job(jobs, arguments.name)
    if job_id is None and before and not ended_early(before[-1]):
        job_id = str(before[-1].submission_id)
    if job_id is not None:
        print(f"{arguments.name}: {job_id} still runs, or has just ended; following it", flush=True)
        return client, job_id
    if before:
        print(f"{arguments.name}: {before[-1].submission_id} ended early; once more", flush=True)
    job_id = client.submit_job(
        entrypoint=shlex.join(arguments.entrypoint),
        metadata={NAME_KEY: arguments.name},
        submission_id=f"{arguments.id}.{len(before) + 1}" if before else arguments.id,
    )
    print(f"{arguments.name}: submitted as {job_id}", flush=True)
    return client, job_id


async def _follow(client: JobSubmissionClient, job_id: str, printed: int, quiet_s: float) -> int:
    """Print what a job prints, but for so many signs of it; how many there are then.

    Returns when the stream ends, breaks, or is quiet for so long: a head that is lost without a
    word ends no connection.
    """
    seen = 0
    try:
        async with aclosing(client.tail_job_logs(job_id)) as stream:
            while True:
                lines = await asyncio.wait_for(anext(stream), quiet_s)
                print(lines[max(0, printed - seen) :], end="", flush=True)
                seen += len(lines)
    except (StopAsyncIteration, TimeoutError, RuntimeError, OSError, aiohttp.ClientError):
        return max(seen, printed)


def _details(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """The job's state, and how it ended.

    Raises:
        ClusterLostError: the cluster does not know the job.
    """
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        raise ClusterLostError(
            f"The cluster does not know {job_id} any more: its head was started anew, and the job "
            "ended with it. The same command again submits it."
        ) from None


def _to_its_end(arguments: argparse.Namespace, waits: Waits) -> int:
    wait_s = 60 * arguments.wait_min
    client, job_id = _patiently(lambda: _begin(arguments, waits), arguments.address, wait_s, waits)
    printed = 0
    while True:
        # Asked for before what is left of the lines is: a job that has ended prints no more.
        job = _patiently(lambda: _details(client, job_id), arguments.address, wait_s, waits)
        printed = asyncio.run(_follow(client, job_id, printed, waits.quiet_s))
        if job.status.is_terminal():
            print(f"{arguments.name}: {job_id} {job.status.value.lower()}", flush=True)
            if job.status == JobStatus.SUCCEEDED:
                return 0
            return ENDED_EARLY if ended_early(job) else ENDED_BADLY
        # The stream of lines may end before the job does, with whoever hands them out.
        time.sleep(waits.pause_s)


def main(argv: Sequence[str] | None = None, waits: Waits | None = None) -> int:
    """Submit or find the job and print what it prints.

    Returns:
        0 if it succeeded; ``ENDED_BADLY`` if it ran and ended otherwise, so that a scheduler can
        tell it from ``ENDED_EARLY``, by what may pass, and from ``CLUSTER_LOST``: the cluster did
        not answer, or has forgotten the job.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _to_its_end(arguments, waits or Waits())
    except ClusterLostError as error:
        print(f"{arguments.name}: {error}", file=sys.stderr, flush=True)
        return CLUSTER_LOST


if __name__ == "__main__":
    sys.exit(main())
