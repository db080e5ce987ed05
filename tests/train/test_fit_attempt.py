"""What an attempt at a fit leaves: its outcome, its time, and whether there is another."""

import queue
from collections.abc import Callable

import pytest
from ray.train import Checkpoint

from nfbmr.config import Config
from nfbmr.errors import StallError, WorkerError
from nfbmr.train.category_task import CategoryTask, FitReport
from nfbmr.train.fit_attempt import Attempt, another_attempt, attempted
from nfbmr.train.fit_capacity import FitShare
from nfbmr.train.fit_queue import QueueHooks, _start
from nfbmr.train.ray_fit import Cause, Failed, Fitted, NotStarted, Outcome

HOURS = 3600.0


@pytest.fixture
def attempt() -> Attempt:
    return Attempt(CategoryTask("bottle", Config(), "/features", "key", {}, [], [], []))


def lasting(seconds: float) -> Callable[[], float]:
    """A clock of which so much has passed between its first two looks."""
    return iter((100.0, 100.0 + seconds)).__next__


def test_a_failure_says_how_long_it_took(attempt: Attempt) -> None:
    outcome = attempted(attempt, lambda: Failed("bottle", "it diverged"), lasting(2 * HOURS))
    assert outcome == Failed("bottle", "it diverged", Cause.USER, 2 * HOURS)


def test_so_does_an_error_that_nobody_expected(attempt: Attempt) -> None:
    def fit() -> Outcome:
        raise ZeroDivisionError("by zero")

    outcome = attempted(attempt, fit, lasting(HOURS))
    text = "The fit of category 'bottle' failed: ZeroDivisionError: by zero"
    assert outcome == Failed("bottle", text, Cause.PROGRAM, HOURS)


def test_what_succeeds_stays_as_it_is(attempt: Attempt) -> None:
    fitted = Fitted("bottle", Checkpoint("/fit"), FitReport([], "mean", {}, 0.5, 0.1, 7.0))
    assert attempted(attempt, lambda: fitted) is fitted


@pytest.mark.parametrize("cause", [Cause.LOST, Cause.MEMORY, Cause.FEATURES])
def test_another_attempt_adds_its_time_to_that_of_the_first(attempt: Attempt, cause: Cause) -> None:
    failed = Failed("bottle", "gone", cause)
    first = attempted(attempt, lambda: failed, lasting(3 * HOURS))
    again = another_attempt(attempt, first)
    assert again is not None
    assert again.first == first
    second = attempted(again, lambda: failed, lasting(HOURS))
    assert isinstance(second, Failed)
    assert second.seconds == 4 * HOURS
    assert another_attempt(again, second) is None, "what was tried to mend once is reported"


def test_what_would_come_again_is_not_tried_again(attempt: Attempt) -> None:
    for outcome in (
        Failed("bottle", "it diverged", Cause.USER),
        Failed("bottle", "a bug", Cause.PROGRAM),
        NotStarted("bottle"),
    ):
        assert another_attempt(attempt, outcome) is None


@pytest.mark.parametrize("error", [StallError("No picture."), WorkerError("A worker failed.")])
def test_a_repair_that_found_no_room_is_tried_once_more(
    attempt: Attempt, error: WorkerError
) -> None:
    """It is given the place of the fit that waits for it, and is no fault of the pictures."""
    given: list[FitShare] = []

    def repair(task: CategoryTask, share: FitShare) -> None:
        given.append(share)
        raise error

    share = FitShare(1, 1.0, 0.25, 1)
    finished: queue.Queue[tuple[Attempt, Outcome]] = queue.Queue()
    again = another_attempt(attempt, Failed("bottle", "damaged", Cause.FEATURES))
    for _ in range(2):
        assert again is not None
        _start(again, share, "/runs", None, QueueHooks(repair=repair), finished)
        again = another_attempt(*finished.get(timeout=30))
    assert given == [share, share]
    assert again is None, "the third time it is reported"
