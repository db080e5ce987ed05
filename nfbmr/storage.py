"""Files on any fsspec file system, written so that a reader sees all of a file or none of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

_DELETERS = 16


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


@contextmanager
def open_atomically(uri: str) -> Iterator[BinaryIO]:
    """A file to write piece by piece; it appears under its name when the block ends well."""
    fs, path = url_to_fs(uri)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                yield file
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return
    file = fs.open(path, "wb")
    try:
        yield file
    except BaseException:
        file.discard()
        raise
    file.close()


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when a file's content does: its ETag, else its time and size.

    Args:
        info: of the file, as fsspec gives it.
    """
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created")
    return f"{changed}/{info.get('size')}"


def file_version(uri: str) -> str:
    """The version of a file as it is now.

    Raises:
        FileNotFoundError: it is gone.
    """
    fs, path = url_to_fs(uri)
    fs.invalidate_cache(path.rpartition("/")[0])
    return version_of(fs.info(path))


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
    if not fs.exists(path):
        return
    try:
        fs.rm(path, recursive=True)
    except OSError:
        if isinstance(fs, LocalFileSystem):
            raise
        # Not every store that speaks S3 takes its bulk deletion as it is sent today: OpenStack
        # Swift 2.30 wants a header that newer clients no longer send.
        fs.invalidate_cache()
        with ThreadPoolExecutor(_DELETERS) as pool:
            list(pool.map(fs.rm_file, fs.find(path)))
