"""Files on any fsspec file system, written so that a reader sees all of a file or none of it."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec.config
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nfbmr.errors import ConfigError, refuse_login
from nfbmr.store_faults import (
    PATIENCE_S,
    knows_no_conditions,
    retried,
)

_PARTIAL = ".partial"
_S3_PROTOCOLS = ("s3://", "s3a://")
# botocore would wait a minute for an answer, five times, and s3fs lets it do so five times.
_S3_WAITS = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}


def file_system(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URI and the path in there.

    An object store's waits are bounded, so that a silent one is noticed in minutes. Settings of
    the user's own (``FSSPEC_S3_CONFIG_KWARGS``) count instead where there are any. Its listings
    are not kept.

    Raises:
        ValueError: the protocol is unknown.
        ImportError: it needs a package that is not installed.
    """
    options: dict[str, Any] = {}
    if uri.startswith(_S3_PROTOCOLS):
        # What others write would be missing from a listing that is kept, and from all that follows.
        options["use_listings_cache"] = False
        if "config_kwargs" not in fsspec.config.conf.get("s3", {}):
            options["config_kwargs"] = _S3_WAITS
    found: tuple[AbstractFileSystem, str] = url_to_fs(uri, **options)
    return found


def absolute_uri(uri: str) -> str:
    """A bare path or ``file://`` URI as an absolute path without ``..``; others as they are.

    One place has one address, since addresses are compared: no slash at the end.

    Raises:
        ConfigError: the address is empty, as that of a variable that is not set, is not UTF-8, or
            has a login in it.
    """
    if not uri.strip():
        raise ConfigError("An address is empty: give a path or URI (is a variable not set?).")
    _refuse_other_than_utf8(uri)
    refuse_login(uri)
    if uri.startswith("s3a://"):  # Hadoop's name of the same thing.
        uri = f"s3://{uri.removeprefix('s3a://')}"
    uri = uri.removeprefix("file://")
    protocol, separator, path = uri.partition("://")
    if separator:
        return f"{protocol}://{path.rstrip('/')}"
    return os.path.abspath(Path(uri).expanduser())  # noqa: PTH100


def _refuse_other_than_utf8(uri: str) -> None:
    try:
        uri.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(uri).decode("utf-8", "backslashreplace")
        raise ConfigError(
            f"The address {shown} is not UTF-8, and no plan or Parquet file can hold it: rename "
            "the file or folder."
        ) from None


def join(root: str, *parts: str) -> str:
    """Join with single slashes, whatever the protocol."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def write_atomically(
    uri: str, data: bytes, patience_s: float = PATIENCE_S, *, durable: bool = False
) -> None:
    """Write a whole file: on a local disk by renaming, on an object store by one put.

    Args:
        uri: of the file.
        data: all of it.
        patience_s: how long a busy or full store is tried again.
        durable: whether it must be whole or missing after a power cut as well: for what says that
            something is finished. Costs a flush of a local disk.
    """
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        retried(lambda: _replace_local(Path(path), data, durable), patience_s)
    else:
        retried(lambda: fs.pipe_file(path, data), patience_s)


def _replace_local(target: Path, data: bytes, durable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        with partial.open("wb") as file:
            file.write(data)
            if durable:
                _flush(file)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    """To the disk itself: a name must not outlive a power cut without its bytes."""
    file.flush()
    os.fsync(file.fileno())


def _partial(target: Path) -> Path:
    """A name beside a file, under which it is written before it appears under its own."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")


def is_partial(name: str) -> bool:
    """Whether a file is what a process that was killed while it wrote has left behind."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def write_new(uri: str, data: bytes) -> bool:
    """Write a whole file unless there is one: of several writers one is first, and stays it.

    Returns:
        Whether this one was first. In a store that knows no conditional writes (OpenStack Swift),
        two that write in the same moment may both be told so; the later one's data stay.
    """
    fs, path = file_system(uri)
    if not isinstance(fs, LocalFileSystem):
        try:
            retried(lambda: fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        except Exception as error:
            if not knows_no_conditions(error):
                raise
            return _write_unless_there(fs, path, data)
        return True
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    with partial.open("wb") as file:
        file.write(data)
        _flush(file)
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        partial.replace(target)  # some mounted shares have no links
    finally:
        partial.unlink(missing_ok=True)
    return True


def _write_unless_there(fs: Any, path: str, data: bytes) -> bool:
    fs.invalidate_cache(path.rpartition("/")[0])
    if retried(lambda: bool(fs.exists(path))):
        return False
    retried(lambda: fs.pipe_file(path, data))
    return True


@contextmanager
def open_atomically(uri: str) -> Iterator[BinaryIO]:
    """A file to write piece by piece; it appears under its name when the block ends well."""
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        try:
            with partial.open("wb") as file:
                yield file
                _flush(file)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return
    with tempfile.NamedTemporaryFile("wb", prefix="nfbmr-upload-") as local:
        yield cast(BinaryIO, local)
        local.flush()
        # In one piece, so that it can be done again when the store is busy.
        retried(lambda: fs.put_file(local.name, path))


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when a file's content does: its ETag, else its time and size.

    Args:
        info: of the file, as fsspec gives it.
    """
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created")
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    return f"{changed}/{info.get('size')}"


def file_version(uri: str, patience_s: float = PATIENCE_S) -> str:
    """The version of a file as it is now.

    Args:
        uri: of the file.
        patience_s: how long a busy store is tried again.

    Raises:
        FileNotFoundError: it is gone.
    """
    fs, path = file_system(uri)

    def look() -> str:
        fs.invalidate_cache(path.rpartition("/")[0])
        return version_of(fs.info(path))

    return retried(look, patience_s)


def read(uri: str) -> bytes | None:
    """The whole file, or None where there is none."""
    fs, path = file_system(uri)
    try:
        data: bytes = retried(lambda: fs.cat_file(path))
    except FileNotFoundError:
        return None
    return data


def size(uri: str) -> int:
    """A file's size in bytes.

    Raises:
        FileNotFoundError: it is gone.
    """
    fs, path = file_system(uri)
    fs.invalidate_cache(path.rpartition("/")[0])
    return int(retried(lambda: fs.info(path))["size"])
