"""Pictures by a pattern, ``s3://bucket/2026-*/line7/*.jpg``: folders to list, and a filter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from nfbmr.data.archive_entry import FILE_ARCHIVE_SUFFIXES
from nfbmr.data.globs import ANY_DEPTH, check_depths, expand
from nfbmr.data.picture_names import is_picture
from nfbmr.data.tree_listing import DEEP, FLAT, TreeLister, TreeSlice

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class PicturePattern:
    """A pattern that matches pictures and nothing else.

    Attributes:
        folders: an address, or a pattern of folders.
        kind: whether pictures lie in those folders (``FLAT``) or anywhere below (``DEEP``).
        tail: patterns of the last components of a picture's name, as ``fnmatch`` has them.
    """

    folders: str
    kind: str
    tail: tuple[str, ...]

    @classmethod
    def of(cls, address: str) -> PicturePattern | None:
        """The pattern in an address; None where it may match folders and archives as well.

        Args:
            address: absolute, with a wildcard.

        Raises:
            DataError: ``**`` is there twice.
        """
        check_depths(address)
        parts = address.split("/")
        number = parts.index(ANY_DEPTH) if ANY_DEPTH in parts else len(parts) - 1
        tail = tuple(part for part in parts[number:] if part != ANY_DEPTH)
        folders = "/".join(parts[:number])
        if not tail or "" in tail or not _MAGIC.search("/".join(parts[number:])):
            return None
        if folders in ("", "/") or folders.endswith(("//", ":/")) or not is_picture(tail[-1]):
            return None
        return cls(folders, DEEP if ANY_DEPTH in parts else FLAT, tail)


class PatternTree(TreeLister):
    """Lists the pictures of a tree whose names end as a pattern says.

    Pictures are named below the folder before the first wildcard.

    Args:
        pattern: what is looked for.

    Raises:
        DataError: see ``TreeLister``; no folder matches.
    """

    def __init__(self, pattern: PicturePattern) -> None:
        self._pattern = pattern
        self._patterns = [re.compile(translate(part)) for part in pattern.tail]
        root, self._folders = _matching_folders(pattern.folders)
        super().__init__(root)

    def _cut(self) -> list[str]:
        if self._pattern.kind == DEEP and self._folders == [""]:
            return super()._cut()
        return [TreeSlice(self._pattern.kind, folder).name for folder in self._folders]

    def identity(self, name: str) -> list[str | None]:
        """What names the listing of a slice, pattern included."""
        return [*super().identity(name), "/".join(self._pattern.tail)]

    def is_wanted(self, member: str) -> bool:
        """Whether its last components match."""
        ends = member.split("/")[-len(self._patterns) :]
        return len(ends) == len(self._patterns) and all(
            pattern.match(end) for pattern, end in zip(self._patterns, ends, strict=True)
        )


def _matching_folders(folders: str) -> tuple[str, Sequence[str]]:
    """The folder before the first wildcard, and the folders below it that match.

    Raises:
        DataError: none does.
    """
    if not _MAGIC.search(folders):
        return folders, [""]
    matches = expand(folders)
    prefix = f"{matches.root.rstrip('/')}/"
    found = [uri for uri in matches.archives if not uri.lower().endswith(FILE_ARCHIVE_SUFFIXES)]
    found += matches.misnamed  # Each picture in there is a problem of its own.
    return matches.root, [uri.removeprefix(prefix) for uri in found]
