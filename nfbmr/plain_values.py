"""Plain values of JSON files that somebody may have changed, taken for what they should be.

Every function raises ``TypeError`` or ``ValueError`` for anything else; whoever reads the file says
which one it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError(f"an object was expected, not {type(value).__name__}")
    return value


def items(value: Any) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {type(value).__name__}")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {type(value).__name__}")
    return value


def texts(values: Any) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(value) for value in items(values))


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a number was expected, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"a finite number was expected, not {value}")
    return float(value)


def count(value: Any) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"a count was expected, not {value!r:.40}")
    return value


def numbers(values: Any) -> dict[str, float]:
    """An object of finite numbers."""
    return {name: number(value) for name, value in mapping(values).items()}


def only(values: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse names that nobody knows."""
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known")
