"""How the category of a picture follows from its name."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.errors import ConfigError

MAX_NAME_LENGTH = 1024
"""Object stores allow no longer names; one in an archive that is longer has no category."""


class CategoryRule:
    """How a picture's category follows from its name.

    Args:
        pattern: matched against the beginning of the member's name. ``{category}`` stands for one
            path component, ``*`` for anything within one, ``**`` for anything.
        fixed: the category of all pictures; overrides the pattern.

    Raises:
        ConfigError: the pattern has no ``{category}`` or several, or more wildcards than can be
            matched in a time that does not explode with the length of a name.
    """

    def __init__(self, pattern: str = "{category}/", fixed: str | None = None) -> None:
        if fixed is None and "{category}" not in pattern:
            raise ConfigError(
                f"--category-pattern {pattern!r} does not say where the category stands: write "
                "{category} in it, as in 'line-7/{category}/', or give one --category for all."
            )
        if fixed is None:
            _check(pattern)
        self.pattern = pattern
        self.fixed = fixed
        pieces = re.split(r"(\{category\}|\*\*|\*)", pattern)
        meaning = {"{category}": "(?P<category>[^/]+)", "**": ".*", "*": "[^/]*"}
        # Of RE2: it takes what re.escape writes, and time that grows with the name alone.
        expression = "".join(meaning.get(piece, re.escape(piece)) for piece in pieces)
        self._expression = f"(?s)^{expression}"

    def categories(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """The category of each name; null where the pattern does not match."""
        if self.fixed is not None:
            return pa.chunked_array([pa.repeat(self.fixed, len(names))], pa.string())
        found = pc.struct_field(pc.extract_regex(names, self._expression), "category")
        fits = pc.less_equal(pc.utf8_length(names), MAX_NAME_LENGTH)
        return pc.if_else(fits, found, pa.scalar(None, found.type)).cast(pa.string())

    def category(self, name: str) -> str | None:
        """The category of one name, or None where the pattern does not match."""
        found: list[str | None] = self.categories(pa.chunked_array([[name]])).to_pylist()
        return found[0]


def _check(pattern: str) -> None:
    """Refuse a pattern that is ambiguous, or slow on names that were made to be.

    Raises:
        ConfigError: saying what to write instead.
    """
    if pattern.count("{category}") > 1:
        raise ConfigError(
            f"--category-pattern {pattern!r} has {{category}} more than once: keep one, and write "
            "* for the others."
        )
    stars = [re.findall(r"\*+", part) for part in pattern.split("/")]
    if any(len(found) > 1 for found in stars) or sum(found == ["**"] for found in stars) > 1:
        raise ConfigError(
            f"--category-pattern {pattern!r} has too many wildcards: at most one * between two "
            "slashes, and at most one ** in all."
        )
    if any(len(found[0]) > 2 for found in stars if found):
        raise ConfigError(f"--category-pattern {pattern!r}: expected * or **, not more stars.")
