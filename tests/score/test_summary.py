"""A run with too many errors says what helps against those that it has."""

import pytest

from nfbmr.errors import FailureBudgetError
from nfbmr.score.summary import ScoringSummary

AGAIN = "--retry-failed scores them again"
ANEW = "score them in a run of their own"


@pytest.mark.parametrize(
    ("kinds", "helps", "does_not"),
    [
        ({"busy": 2, "killed": 1}, AGAIN, ANEW),
        ({"no_model": 3}, f"kind no_model stay errors in this run.*{ANEW}", AGAIN),
        ({"truncated": 2, "denied": 1}, f"{AGAIN}.*kind truncated stay.*{ANEW}", "denied stay"),
    ],
)
def test_the_remedy_is_that_of_the_kind(kinds: dict[str, int], helps: str, does_not: str) -> None:
    summary = ScoringSummary.of_earlier(
        {
            **{"output": "/scores", "run_id": "r", "pictures": 10, "failed": 3},
            **{"failed_by_kind": kinds, "models": {}, "drift": {}, "elapsed_s": 1.0},
            **{"scored_now": 10, "fetched_bytes": 1, "forward": None},
        }
    )
    summary.check_failures(0.3)
    with pytest.raises(FailureBudgetError, match=helps) as caught:
        summary.check_failures(0.2)
    assert does_not not in str(caught.value)
