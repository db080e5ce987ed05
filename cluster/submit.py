#!/opt/nfbmr/bin/python
"""Submit a job to a Ray cluster under a name, and follow it to its end.

A job of the same name that still runs is followed instead: a scheduler that loses its pod, or comes
round again before the night is over, never starts a second one beside the first.

The cluster's address and token come from the environment: RAY_ADDRESS, RAY_AUTH_MODE and
RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from collections.abc import Sequence

from ray.job_submission import JobStatus, JobSubmissionClient

NAME_KEY = "nfbmr-job"
_PAUSE_S = 2.0
ENDED_BADLY = 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nfbmr-submit",
        description=__doc__,
        epilog="example:\n  nfbmr-submit --name night -- python -m jobs.train --data s3://factory/parts",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="two jobs of one name never run at once")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS", "http://127.0.0.1:8265"),
        help="of the cluster's job server (default: $RAY_ADDRESS, else %(default)s)",
    )
    parser.add_argument("entrypoint", nargs="+", help="the command to run on the cluster")
    return parser


def running_job(client: JobSubmissionClient, name: str) -> str | None:
    """The id of the job of this name that has not ended, if there is one."""
    for job in client.list_jobs():
        has_name = (job.metadata or {}).get(NAME_KEY) == name
        if has_name and job.submission_id and not job.status.is_terminal():
            return str(job.submission_id)
    return None


async def _follow(client: JobSubmissionClient, job_id: str, printed: int) -> int:
    """Print what a job prints, but for so many signs of it; how many there are then."""
    seen = 0
    async for lines in client.tail_job_logs(job_id):
        print(lines[max(0, printed - seen) :], end="", flush=True)
        seen += len(lines)
    return max(seen, printed)


def main(argv: Sequence[str] | None = None) -> int:
    """Submit or find the job and print what it prints.

    Returns:
        0 if it succeeded; ``ENDED_BADLY`` if it ran and ended otherwise, so that a scheduler can
        tell it from a pod that lost the cluster.
    """
    arguments = _parser().parse_args(argv)
    client = JobSubmissionClient(arguments.address)
    job_id = running_job(client, arguments.name)
    if job_id is None:
        entrypoint = shlex.join(arguments.entrypoint)
        job_id = client.submit_job(entrypoint=entrypoint, metadata={NAME_KEY: arguments.name})
        print(f"{arguments.name}: submitted as {job_id}", flush=True)
    else:
        print(f"{arguments.name}: {job_id} still runs; following it", flush=True)
    printed = asyncio.run(_follow(client, job_id, 0))
    status = client.get_job_status(job_id)
    while not status.is_terminal():
        # The stream of lines may end before the job does, with whoever hands them out.
        time.sleep(_PAUSE_S)
        printed = asyncio.run(_follow(client, job_id, printed))
        status = client.get_job_status(job_id)
    print(f"{arguments.name}: {job_id} {status.value.lower()}", flush=True)
    return 0 if status == JobStatus.SUCCEEDED else ENDED_BADLY


if __name__ == "__main__":
    sys.exit(main())
