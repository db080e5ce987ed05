"""What Ray Train's errors are taken for: which of them another attempt may mend."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
)

from nfbmr.config import Config
from nfbmr.errors import FeaturesError
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.ray_fit import Cause, outcome_of_failure

DIED = WorkerHealthCheckFailedError("The worker died.", failure=ActorDiedError())


def raised(error: Exception) -> UserExceptionWithTraceback:
    """As a worker's error arrives."""
    name = f"{type(error).__module__}.{type(error).__name__}"
    return UserExceptionWithTraceback(error, f"Traceback ...\n{name}: {error}")


@pytest.fixture
def task() -> CategoryTask:
    return CategoryTask("bottle", Config(), "/features", "key", {}, [], [], [])


@pytest.mark.parametrize(
    ("failures", "cause", "says"),
    [
        ([DIED], Cause.LOST, "was lost"),
        # The one that is left only notices that nobody answers.
        ([raised(RuntimeError("Connection closed by peer")), DIED], Cause.LOST, "was lost"),
        ([raised(ZeroDivisionError("by zero"))] * 2, Cause.PROGRAM, "failed"),
        ([raised(FeaturesError("gone")), DIED], Cause.FEATURES, "found no features"),
        ([raised(RuntimeError("CUDA error: out of memory"))], Cause.MEMORY, "ran out of memory"),
    ],
)
def test_what_the_failures_of_workers_mean(
    task: CategoryTask, failures: list[Exception], cause: Cause, says: str
) -> None:
    error = WorkerGroupError("Training failed.", dict(enumerate(failures)))
    outcome = outcome_of_failure(task, error)
    assert (outcome.category, outcome.cause) == ("bottle", cause)
    assert f"'bottle' {says}" in outcome.error
    # A defect of the program closes the night, and with it goes the state.
    assert ("goes on from there" in outcome.error) is (cause is not Cause.PROGRAM)


def test_a_run_without_a_failed_worker_is_lost(task: CategoryTask) -> None:
    """The controller gives up, for instance when no worker could be started."""
    assert outcome_of_failure(task, TrainingFailedError("no room")).cause is Cause.LOST
