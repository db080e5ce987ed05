"""The files of a finished data set, merged by tasks all over the cluster.

What a file holds follows from the plan, and a task writes it atomically: a task that is lost with
its node is started again by Ray, and writes the same rows under the same name.
"""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from nfbmr.errors import NfbmrError, WorkerError
from nfbmr.resources import first_cause
from nfbmr.score.merge import Merge, merge_units
from nfbmr.score.parts import Part

_END_TIMEOUT_S = 60.0


def merge_parts(merge: Merge, parts: Sequence[Part], stall_timeout_s: float) -> None:
    """As ``merge_units``, but each file in a task of its own.

    A single file is written here, and so are all where no Ray runs.

    Args:
        merge: of the run.
        parts: which units go into which file.
        stall_timeout_s: the longest time in which no file may be finished.

    Raises:
        OutputError: a unit is gone, or has other rows than the plan says.
        OSError: the storage failed.
        WorkerError: a task failed for another reason, several times, or nothing comes any more.
    """
    if len(parts) < 2 or not ray.is_initialized():
        merge_units(merge, parts)
        return
    task = ray.remote(num_cpus=1)(merge_units)
    # A part is a list of thousands of units: no more of them wait than will soon be merged.
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    left = list(reversed(parts))
    waiting: list[ray.ObjectRef[None]] = []
    try:
        while left or waiting:
            while left and len(waiting) < at_once:
                waiting.append(task.remote(merge, [left.pop()]))
            done, waiting = ray.wait(waiting, timeout=stall_timeout_s)
            if not done:
                raise WorkerError(
                    f"No file was merged for {stall_timeout_s:g} s (run.stall_timeout_s), "
                    f"{len(left) + len(waiting)} of {len(parts)} are left: look for nodes that are "
                    "gone or full. All scores are committed: run the same command again."
                )
            ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, NfbmrError | OSError):
            raise error.cause from None  # A sentence, without the task's traceback around it.
        raise _failed(error) from error
    except RayError as error:
        raise _failed(error) from error
    finally:
        _end(waiting)


def _end(waiting: Sequence[ray.ObjectRef[None]]) -> None:
    """End tasks, and wait until they are: one that still writes would undo the tidying up."""
    for one in waiting:
        ray.cancel(one, force=True)
    if waiting:
        ray.wait(list(waiting), num_returns=len(waiting), timeout=_END_TIMEOUT_S)


def _failed(error: RayError) -> WorkerError:
    return WorkerError(
        f"A task failed while merging the scores: {first_cause(error)}. All scores are committed: "
        "mend the cause and run the same command again."
    )
