"""Listing the pictures of a folder or prefix: its sub-folders at the same time, page by page.

Pages become columns at once, so that memory holds names and versions and no objects. In an object
store a sub-prefix is listed flat, a thousand files per request, however it is nested.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from s3fs.core import S3FileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import ENTRIES, ArchiveListing, EntryRows, printable
from nfbmr.data.key_ranges import keys_to_cut_at
from nfbmr.data.lister import GOES_ON_AS, Lister, SliceListing
from nfbmr.data.picture_names import is_picture
from nfbmr.errors import STORE_ERRORS, DataError
from nfbmr.store_faults import retried

_ENOUGH_SLICES = 32
_MAX_DEPTH = 4
MAX_SEEN = 2000
"""A prefix of more files and folders is not looked through: its keys are cut into ranges."""
FLAT, DEEP = "files of /", "all of /"
_BETWEEN = "\0"
"""Between the parts of a slice's name; no key has a NUL."""

FILES_PER_SLICE = 100_000
"""So many are in memory before they are on disk: 20 MB, and ten seconds of listing."""


@dataclass(frozen=True, slots=True)
class TreeSlice:
    """Part of a folder or prefix.

    Attributes:
        kind: the files of a folder alone, or all below it.
        folder: relative to the root.
        after: in an object store, keys that come after this one, bucket included.
        until: and up to this one; empty for all that come.
    """

    kind: str
    folder: str
    after: str = ""
    until: str = ""

    @property
    def name(self) -> str:
        """What ``named`` understands."""
        name = self.kind + self.folder
        return _BETWEEN.join([name, self.after, self.until]) if self.after or self.until else name

    @classmethod
    def named(cls, name: str) -> TreeSlice:
        """The slice of a name."""
        base, _, keys = name.partition(_BETWEEN)
        after, _, until = keys.partition(_BETWEEN)
        kind = FLAT if base.startswith(FLAT) else DEEP
        return cls(kind, base.removeprefix(kind), after, until)


class TreeLister(Lister):
    """Lists a folder or prefix.

    Args:
        archive: absolute, without a slash at its end.

    Raises:
        DataError: it is missing, is a file, or cannot be listed.
    """

    comes_in_pieces = True

    def __init__(self, archive: str) -> None:
        super().__init__(archive, None)
        try:
            self._fs, self._path = storage.file_system(archive)
            self._fs.invalidate_cache()
            retried(self._check)
            self.slices = self._cut()
        except STORE_ERRORS as error:
            raise _cannot(archive, error) from error

    def _check(self) -> None:
        if self._fs.isdir(self._path):
            return
        if self._fs.isfile(self._path):
            raise DataError(
                f"{self.archive} is a file: expected a folder, prefix, .tar, .tar.gz, .zip, "
                ".parquet or .csv; give the folder it lies in."
            )
        raise DataError(f"{self.archive} does not exist: check the path.")

    def _cut(self) -> list[str]:
        """Folders to list with all that is in them, and those above them without."""
        above: list[str] = []
        front = [""]
        self._crowded: set[str] = set()
        for _ in range(_MAX_DEPTH):
            if len(front) >= _ENOUGH_SLICES:
                break
            below = {folder: self._sub_folders(folder) for folder in front}
            opened = [folder for folder in front if below[folder]]
            if not opened:
                break
            above += opened
            front = [child for folder in front for child in (below[folder] or [folder])]
        slices = [TreeSlice(FLAT, folder) for folder in above]
        wanted = math.ceil(_ENOUGH_SLICES / len(front))
        for folder in front:
            slices += self._ranges(folder, wanted if folder in self._crowded else 1)
        return sorted(part.name for part in slices)

    def _ranges(self, folder: str, wanted: int) -> list[TreeSlice]:
        """A folder with all below it; in an object store in several ranges of keys."""
        if wanted == 1 or not isinstance(self._fs, S3FileSystem):
            return [TreeSlice(DEEP, folder)]
        bucket, key, _ = self._fs.split_path(
            storage.join(self._path, folder) if folder else self._path
        )
        first_key = partial(_first_key, self._fs, bucket)
        cuts = keys_to_cut_at(first_key, f"{key.rstrip('/')}/" if key else "", wanted)
        edges = ["", *(f"{bucket}/{cut}" for cut in cuts), ""]
        return [TreeSlice(DEEP, folder, *edge) for edge in pairwise(edges)]

    def _sub_folders(self, folder: str) -> list[str]:
        """Names of a folder's folders, relative to the root; none where it is mostly files."""
        path = storage.join(self._path, folder) if folder else self._path
        found: list[str] = []
        files = 0
        for info in children(self._fs, path):
            if info["name"].endswith("/"):
                return []  # A folder without a name, as in a//b, has no address of its own.
            if info["type"] == "directory":
                found.append(
                    storage.join(folder, _last(info["name"])) if folder else _last(info["name"])
                )
            else:
                files += 1
            if self._is_crowded(files, len(found)):
                self._crowded.add(folder)
                return []
        return found

    def _is_crowded(self, files: int, folders: int) -> bool:
        if isinstance(self._fs, S3FileSystem):
            return files + folders > MAX_SEEN
        return folders > MAX_SEEN or (files > MAX_SEEN and not folders)

    def list_slice(self, name: str) -> SliceListing:
        """List the files of a folder, or all files below it.

        In an object store it ends after ``FILES_PER_SLICE`` files and says how it goes on.
        """
        part = TreeSlice.named(name)
        path = storage.join(self._path, part.folder) if part.folder else self._path
        rows = EntryRows(ENTRIES)
        problems: list[str] = []
        seen, skipped, last = 0, 0, ""
        prefix = self._path.rstrip("/") + "/"
        notes: dict[str, Any] = {}
        try:
            list_files = children if part.kind == FLAT else files_below
            for info in list_files(self._fs, path, part.after):
                if info["type"] != "file":
                    continue
                if part.until and info["name"] > part.until:
                    break
                seen += 1
                if seen > FILES_PER_SLICE and isinstance(self._fs, S3FileSystem):
                    notes[GOES_ON_AS] = replace(part, after=last).name
                    break
                last = info["name"]
                member = last.removeprefix(prefix)
                if not self.is_wanted(member):
                    continue
                if member != printable(member):
                    name = printable(member)
                    problems.append(f"{self.archive}/{name} has a name that is not UTF-8")
                elif is_picture(member):
                    size = int(info.get("size") or 0)
                    rows.add((member, None, size, storage.version_of(info), None, None))
                else:
                    skipped += 1
        except STORE_ERRORS as error:
            raise _cannot(self.archive, error) from error
        return SliceListing(rows.table(), {**notes, "problems": problems, "skipped": skipped})

    def is_wanted(self, member: str) -> bool:
        """Whether a file, named below the folder, is listed at all."""
        del member
        return True

    def join(self, listings: Sequence[SliceListing]) -> ArchiveListing:
        """All pictures by name."""
        table = pa.concat_tables([listing.table for listing in listings])
        return ArchiveListing(
            self.archive,
            table.sort_by("member"),
            problems=sorted(text for listing in listings for text in listing.notes["problems"]),
            skipped_members=sum(listing.notes["skipped"] for listing in listings),
        )


def _cannot(archive: str, error: Exception) -> DataError:
    return DataError(
        f"{archive} cannot be listed: {error}. Check the address, and for object stores the "
        "credentials in the environment."
    )


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def children(fs: Any, path: str, after: str = "") -> Iterator[Mapping[str, Any]]:
    """What lies directly in a folder, as fsspec describes it.

    Args:
        fs: the file system.
        path: of the folder.
        after: in an object store, only what comes after this name; elsewhere everything comes.
    """
    if isinstance(fs, S3FileSystem):
        yield from _s3_pages(fs, path, "/", after)
    elif isinstance(fs, LocalFileSystem):
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield _linked(fs, entry)
                    continue
                # A camera renames what it has finished writing: the old name is no picture.
                with suppress(FileNotFoundError):
                    yield fs.info(entry)
    else:
        yield from fs.ls(path, detail=True)


def _linked(fs: LocalFileSystem, entry: os.DirEntry[str]) -> Mapping[str, Any]:
    """What a link stands for; one to a folder that it lies in itself is passed over."""
    try:
        info: dict[str, Any] = fs.info(entry.path)
    except OSError:  # It leads nowhere: a file that cannot be read.
        return {"name": entry.path, "type": "file", "size": None}
    if info["type"] == "directory" and _leads_back(entry.path):
        return {**info, "type": "other"}
    return info


def _leads_back(path: str) -> bool:
    real = os.path.realpath(path)
    return any(os.path.realpath(parent) == real for parent in PurePosixPath(path).parents)


def files_below(fs: Any, path: str, after: str = "") -> Iterator[Mapping[str, Any]]:
    """All files below a folder, as fsspec describes them; see ``children``."""
    if isinstance(fs, S3FileSystem):
        yield from _s3_pages(fs, path, "", after)
        return
    folders = [path]
    while folders:
        for info in children(fs, folders.pop()):
            if info["type"] == "directory":
                folders.append(info["name"])
            else:
                yield info


def _first_key(fs: S3FileSystem, bucket: str, prefix: str, after: str) -> str | None:
    ask = {"Bucket": bucket, "Prefix": prefix, "StartAfter": after, "MaxKeys": 1}
    page = retried(partial(fs.call_s3, "list_objects_v2", **ask))
    return next((str(item["Key"]) for item in page.get("Contents", [])), None)


def _s3_pages(fs: S3FileSystem, path: str, delimiter: str, after: str) -> Iterator[dict[str, Any]]:
    """A prefix page by page; s3fs itself would hold all of it, and keep it."""
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    ask = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
    if after:
        ask["StartAfter"] = after.removeprefix(f"{bucket}/")
    while True:
        page = retried(partial(fs.call_s3, "list_objects_v2", **ask))
        for folder in page.get("CommonPrefixes", []):
            name = folder["Prefix"].removesuffix("/")
            yield {"name": f"{bucket}/{name}", "type": "directory"}
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                yield {
                    "name": f"{bucket}/{item['Key']}",
                    "type": "file",
                    "size": item["Size"],
                    "ETag": item["ETag"],
                }
        if not page.get("IsTruncated"):
            return
        ask["ContinuationToken"] = page["NextContinuationToken"]
