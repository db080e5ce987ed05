"""Patterns of sources: ``s3://bucket/2026-*/line7/*.tar``, and pictures by pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import (
    ENTRIES,
    FILE_ARCHIVE_SUFFIXES,
    ArchiveListing,
    EntryRows,
    printable,
)
from nfbmr.data.lister import WholeLister
from nfbmr.data.picture_names import is_picture
from nfbmr.data.tree_listing import children, files_below
from nfbmr.errors import STORE_ERRORS, DataError
from nfbmr.store_faults import retried

_MAGIC = re.compile(r"[*?\[]")
ANY_DEPTH = "**"


@dataclass
class GlobMatches:
    """What a pattern found.

    Attributes:
        pattern: absolute.
        root: the folder above the pattern's first wildcard.
        archives: folders and archives, sorted.
        pictures: single pictures, as rows of ``ENTRIES`` with names below the root.
        problems: names that are none.
        misnamed: folders among them.
    """

    pattern: str
    root: str
    archives: list[str] = field(default_factory=list)
    pictures: EntryRows = field(default_factory=lambda: EntryRows(ENTRIES))
    problems: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)


class MatchedPictures(WholeLister):
    """The single pictures that a pattern found, listed with it.

    Args:
        matches: of the pattern.
    """

    def __init__(self, matches: GlobMatches) -> None:
        super().__init__(matches.root, None)
        # Two patterns below one folder are two sources.
        self.slices = [f"what matches {matches.pattern}"]
        self._matches = matches

    def list_whole(self) -> ArchiveListing:
        """The pictures by name."""
        table = self._matches.pictures.table().sort_by("member")
        return ArchiveListing(self.archive, table, problems=sorted(self._matches.problems))


def check_depths(uri: str) -> None:
    """Refuse a pattern that says twice "at any depth": what it would leave out is not obvious.

    Raises:
        DataError: it does.
    """
    if uri.split("/").count(ANY_DEPTH) > 1:
        raise DataError(
            f"{uri} has ** more than once: name the pictures with one, for example "
            "s3://bucket/line-*/**/*.jpg, or give several patterns."
        )


def is_pattern(uri: str) -> bool:
    """Whether a source has wildcards and is not itself there under that name."""
    if not _MAGIC.search(uri):
        return False
    fs, path = storage.file_system(uri)
    return not retried(lambda: fs.exists(path))


def expand(uri: str) -> GlobMatches:
    """What a pattern matches, one folder level after the other.

    ``*``, ``?`` and ``[…]`` match within one component, ``**``, which may be there once, any number
    of them. Names that begin with a dot are passed over.

    Args:
        uri: absolute.

    Raises:
        DataError: nothing matches, the store cannot be listed, or ``**`` is there twice.
    """
    check_depths(uri)
    fixed, first, rest = _cut(uri)
    try:
        fs, root = storage.file_system(fixed)
        address = root if isinstance(fs, LocalFileSystem) else fixed
        matches = GlobMatches(uri, address)
        fs.invalidate_cache()
        for info in _matching(fs, root, [first, *rest]):
            _take(matches, info, root)
    except STORE_ERRORS as error:
        raise DataError(f"{uri} cannot be listed: {error}. Check the address.") from error
    if not matches.archives and not len(matches.pictures) and not matches.problems:
        raise DataError(
            f"{uri} matches no folder, archive or picture: check the pattern (and quote it, so "
            "that the shell leaves it alone)."
        )
    matches.archives.sort()
    return matches


def _cut(uri: str) -> tuple[str, str, list[str]]:
    """The part before the first component with a wildcard, that component, and those behind."""
    protocol, separator, path = uri.rpartition("://")
    parts = path.split("/")
    number = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    fixed = f"{protocol}{separator}{'/'.join(parts[:number])}" or "/"
    if separator and not number:
        raise DataError(f"{uri} has a wildcard in the bucket's name: name the bucket.")
    return fixed, parts[number], [part for part in parts[number + 1 :] if part]


def _matching(fs: Any, folder: str, parts: list[str]) -> Iterator[Mapping[str, Any]]:
    part, *rest = parts
    if part == ANY_DEPTH:
        yield from _at_any_depth(fs, folder, rest)
        return
    if not _MAGIC.search(part):
        yield from _named(fs, f"{folder.rstrip('/')}/{part}", rest)
        return
    for info in children(fs, folder):
        if info["name"].endswith("/"):  # A folder without a name, as in a//b: only ** is for those.
            continue
        name = info["name"].rstrip("/").rpartition("/")[2]
        if name.startswith(".") or not fnmatchcase(name, part):
            continue
        if not rest:
            yield info
        elif info["type"] == "directory":
            yield from _matching(fs, info["name"], rest)


def _named(fs: Any, path: str, rest: list[str]) -> Iterator[Mapping[str, Any]]:
    if rest:
        if fs.isdir(path):
            yield from _matching(fs, path, rest)
        return
    try:
        yield fs.info(path)
    except FileNotFoundError:
        return


def _at_any_depth(fs: Any, folder: str, rest: list[str]) -> Iterator[Mapping[str, Any]]:
    """Files below a folder whose names end as the rest of the pattern says."""
    tail = rest or ["*"]
    for info in files_below(fs, folder):
        below = info["name"].removeprefix(folder.rstrip("/") + "/").split("/")
        ends = below[-len(tail) :]
        if len(ends) == len(tail) and all(map(fnmatchcase, ends, tail)):
            yield info


def _take(matches: GlobMatches, info: Mapping[str, Any], root: str) -> None:
    path = str(info["name"]).rstrip("/")
    member = path.removeprefix(root.rstrip("/") + "/")
    if member != printable(member):
        matches.problems.append(f"{matches.root}/{printable(member)} has a name that is not UTF-8")
        if info["type"] == "directory":
            matches.misnamed.append(storage.join(matches.root, member))
    elif info["type"] == "directory" or path.lower().endswith(FILE_ARCHIVE_SUFFIXES):
        matches.archives.append(storage.join(matches.root, member))
    elif info["type"] == "file" and is_picture(member):
        size = int(info.get("size") or 0)
        matches.pictures.add((member, None, size, storage.version_of(info), None, None))
