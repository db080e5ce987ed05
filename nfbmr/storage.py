"""Files on any fsspec file system, written so that a reader sees all of a file or none of it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


def absolute_uri(uri: str) -> str:
    """A bare path made absolute; anything with a protocol as it is."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def join(root: str, *parts: str) -> str:
    """Join with single slashes, whatever the protocol."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def write_atomically(uri: str, data: bytes) -> None:
    """Write a whole file: on a local disk by renaming, on an object store by one put."""
    fs, path = url_to_fs(uri)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        partial.write_bytes(data)
        partial.replace(target)
    else:
        fs.pipe_file(path, data)


def read(uri: str) -> bytes | None:
    """The whole file, or None where there is none."""
    fs, path = url_to_fs(uri)
    try:
        data: bytes = fs.cat_file(path)
    except FileNotFoundError:
        return None
    return data


def list_names(uri: str) -> list[str]:
    """Names of the files directly in a folder or prefix, sorted; none where it does not exist."""
    fs, path = url_to_fs(uri)
    fs.invalidate_cache()
    try:
        entries: list[dict[str, Any]] = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return sorted(e["name"].rpartition("/")[2] for e in entries if e["type"] == "file")


def remove_tree(uri: str) -> None:
    """Remove a folder or prefix with everything in it, if it is there."""
    fs, path = url_to_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)
