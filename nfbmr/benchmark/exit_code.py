"""What a benchmark's exit code says."""

from __future__ import annotations

from collections.abc import Mapping

from nfbmr.errors import FailureBudgetError


def exit_code(result: Mapping[str, object]) -> int:
    """Whether what was asked of a result holds: 8 where a part of it failed, 1 where it does not.

    Args:
        result: the object that the output ends with.
    """
    if result.get("failures"):
        return FailureBudgetError.exit_code
    return int(result.get("passed") is False)
