"""Pictures by a pattern at any depth, ``s3://bucket/2026/**/front-*.jpg``: a tree, and a filter."""

from __future__ import annotations

import re
from fnmatch import translate

from nfbmr.data.listing import is_picture
from nfbmr.data.tree_listing import TreeLister

_ANY_DEPTH = "/**/"
_MAGIC = re.compile(r"[*?\[]")


def cut_at_any_depth(pattern: str) -> tuple[str, list[str]] | None:
    """The folder before ``**`` and the components behind it.

    None where the pattern has other wildcards before, or may match more than pictures: that takes
    a look at every folder and archive, see ``globs.expand``.
    """
    root, found, rest = pattern.partition(_ANY_DEPTH)
    tail = rest.split("/")
    is_plain = found and root and not _MAGIC.search(root) and "**" not in tail and "" not in tail
    return (root, tail) if is_plain and is_picture(tail[-1]) else None


class PatternTree(TreeLister):
    """Lists the pictures of a tree whose names end as a pattern says.

    Args:
        archive: the folder, absolute.
        tail: patterns of the last components of a name, each as ``fnmatch`` has them.

    Raises:
        DataError: see ``TreeLister``.
    """

    def __init__(self, archive: str, tail: list[str]) -> None:
        super().__init__(archive)
        self._tail = tail
        self._patterns = [re.compile(translate(part)) for part in tail]

    def identity(self, name: str) -> list[str | None]:
        """What names the listing of a slice, pattern included."""
        return [*super().identity(name), "/".join(self._tail)]

    def is_wanted(self, member: str) -> bool:
        """Whether its last components match."""
        ends = member.split("/")[-len(self._patterns) :]
        return len(ends) == len(self._patterns) and all(
            pattern.match(end) for pattern, end in zip(self._patterns, ends, strict=True)
        )
