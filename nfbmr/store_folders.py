"""Folders and prefixes on any fsspec file system: what is in them, and their end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from nfbmr.storage import file_system, join
from nfbmr.store_faults import StoreFault, fault_of, retried

_DELETERS = 16


def list_names(uri: str) -> list[str]:
    """Names of the files directly in a folder or prefix, sorted; none where it does not exist."""
    return _names(uri, "file")


def list_folders(uri: str) -> list[str]:
    """Names of the folders directly in a folder or prefix, sorted; none where it does not exist."""
    return _names(uri, "directory")


def _names(uri: str, kind: str) -> list[str]:
    fs, path = file_system(uri)

    def look() -> list[dict[str, Any]]:
        fs.invalidate_cache()
        found: list[dict[str, Any]] = fs.ls(path, detail=True)
        return found

    try:
        entries = retried(look)
    except FileNotFoundError:
        return []
    names = [e["name"] for e in entries if e["type"] == kind]
    found = [name for name in names if not _is_marker(name, kind, path)]
    return sorted(name.rstrip("/").rpartition("/")[2] for name in found)


def _is_marker(name: str, kind: str, path: str) -> bool:
    """Whether it stands for a folder itself: consoles make one as an object named ``folder/``."""
    return name.rstrip("/") == path.rstrip("/") or (kind == "file" and name.endswith("/"))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a listing: size in bytes, time of its last change in seconds since 1970."""

    size: int
    changed_at: float


def list_tree(uri: str) -> dict[str, StoredFile]:
    """All files below a folder or prefix by their names relative to it."""
    fs, path = file_system(uri)

    def look() -> dict[str, dict[str, Any]]:
        fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = fs.find(path, detail=True)
        return found

    prefix = path.rstrip("/") + "/"
    return {
        name.removeprefix(prefix): StoredFile(int(info.get("size") or 0), _changed_at(info))
        for name, info in retried(look).items()
        if info["type"] == "file" and not _is_marker(name, "file", path)
    }


def _changed_at(info: Mapping[str, Any]) -> float:
    changed = info.get("mtime") or info.get("LastModified") or 0.0
    return changed.timestamp() if isinstance(changed, datetime) else float(changed)


def remove_files(root: str, names: Iterable[str]) -> None:
    """Remove files below a folder or prefix; those that are gone already are no error."""
    fs, path = file_system(root)

    def remove(name: str) -> None:
        with suppress(FileNotFoundError):
            retried(lambda: fs.rm_file(join(path, name)))

    with ThreadPoolExecutor(_DELETERS) as pool:
        list(pool.map(remove, names))


def remove_tree(uri: str) -> None:
    """Remove a folder or prefix with everything in it, if it is there."""
    fs, path = file_system(uri)

    def remove() -> None:
        fs.invalidate_cache()
        if fs.exists(path):
            _remove_existing(fs, path)

    retried(remove)


def _remove_existing(fs: AbstractFileSystem, path: str) -> None:
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return  # another process is removing it
    except OSError as error:
        if isinstance(fs, LocalFileSystem) or fault_of(error) is not StoreFault.OTHER:
            raise
        # Not every store that speaks S3 takes its bulk deletion as it is sent today: OpenStack
        # Swift 2.30 wants a header that newer clients no longer send.
        fs.invalidate_cache()
        with ThreadPoolExecutor(_DELETERS) as pool:
            list(pool.map(fs.rm_file, fs.find(path)))
