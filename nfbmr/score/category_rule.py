"""How the category of a picture follows from its name."""

from __future__ import annotations

import re

from nfbmr.errors import ConfigError


class CategoryRule:
    """How a picture's category follows from its name.

    Args:
        pattern: matched against the beginning of the member's name. ``{category}`` stands for one
            path component, ``*`` for anything within one, ``**`` for anything.
        fixed: the category of all pictures; overrides the pattern.

    Raises:
        ConfigError: the pattern has no ``{category}``, or several.
    """

    def __init__(self, pattern: str = "{category}/", fixed: str | None = None) -> None:
        if fixed is None and "{category}" not in pattern:
            raise ConfigError(
                f"--category-pattern {pattern!r} does not say where the category stands: write "
                "{category} in it, as in 'line-7/{category}/', or give one --category for all."
            )
        if fixed is None and pattern.count("{category}") > 1:
            raise ConfigError(
                f"--category-pattern {pattern!r} has {{category}} more than once: keep one, and "
                "write * for the others."
            )
        self.pattern = pattern
        self.fixed = fixed
        pieces = re.split(r"(\{category\}|\*\*|\*)", pattern)
        meaning = {"{category}": "(?P<category>[^/]+)", "**": ".*", "*": "[^/]*"}
        self._expression = re.compile("".join(meaning.get(p, re.escape(p)) for p in pieces))

    def category(self, member: str) -> str | None:
        """The category of a member, or None where the pattern does not match."""
        if self.fixed is not None:
            return self.fixed
        match = self._expression.match(member)
        return match.group("category") if match else None
