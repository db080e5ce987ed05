"""One attempt at a category's fit: what came of it, how long it took, whether another may help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from nfbmr.train.category_task import CategoryTask
from nfbmr.train.ray_fit import Cause, Failed, Outcome, cause_of


@dataclass(frozen=True)
class Attempt:
    """A category whose turn comes or has come.

    Attributes:
        task: what to fit.
        second_for: what earlier attempts failed of, each mended once.
        first: why there is a second one.
    """

    task: CategoryTask
    second_for: frozenset[Cause] = frozenset()
    first: Failed | None = None


def attempted(
    attempt: Attempt, fit: Callable[[], Outcome], clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """What comes of a fit; an error that nobody expected is one category's failure, too.

    A failure has the seconds of all attempts so far.

    Args:
        attempt: which one it is.
        fit: runs it to its end.
        clock: seconds since whenever.
    """
    began = clock()
    try:
        outcome = fit()
    except BaseException as error:  # It ends this fit's thread alone.
        category, what = attempt.task.category, f"{type(error).__name__}: {error}"
        text = f"The fit of category {category!r} failed: {what}"
        outcome = Failed(category, text, cause_of(error))
    if not isinstance(outcome, Failed):
        return outcome
    earlier = attempt.first.seconds if attempt.first else 0.0
    return replace(outcome, seconds=earlier + clock() - began)


def another_attempt(attempt: Attempt, outcome: Outcome) -> Attempt | None:
    """A second attempt, where it may mend what failed."""
    if not isinstance(outcome, Failed) or outcome.cause in attempt.second_for:
        return None
    if outcome.cause not in (Cause.FEATURES, Cause.MEMORY, Cause.LOST):
        return None
    return Attempt(attempt.task, attempt.second_for | {outcome.cause}, outcome)
