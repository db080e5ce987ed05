"""Files and byte ranges of files on any fsspec file system, of the version that was listed."""

from __future__ import annotations

import http.client
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from s3fs.core import S3FileSystem

from nfbmr import storage
from nfbmr.errors import DataError
from nfbmr.store_faults import retried

_PRECONDITION_FAILED = (412, "PreconditionFailed")
"""The file has another version than the one that was asked for."""
_RANGE_NOT_SATISFIABLE = (416, "InvalidRange")
"""The range lies behind the file's end: from 0 on, of an empty file."""


def locate(uri: str) -> tuple[Any, str]:
    """File system and path of a file; ``::`` in a name is not taken for a chain of systems."""
    folder, separator, _ = uri.partition("::")
    if separator:
        folder = folder.rpartition("/")[0]
        fs, path = storage.file_system(folder)
        return fs, f"{path}{uri.removeprefix(folder)}"
    fs, path = storage.file_system(uri)
    return fs, str(path)


def open_file(uri: str) -> BinaryIO:
    """Open an archive for reading and seeking.

    Raises:
        DataError: it is missing or out of reach.
    """
    try:
        fs, path = storage.file_system(uri)
        return cast(BinaryIO, fs.open(path, "rb"))
    except FileNotFoundError as error:
        raise _gone(uri) from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"The archive {uri} cannot be opened: {type(error).__name__}: {error}. Check the "
            "address, and for object stores the credentials in the environment."
        ) from error


def size_and_version(uri: str) -> tuple[int, str]:
    """Size in bytes and version of a file as it is now, by one request.

    Raises:
        DataError: it is missing, no file, or out of reach.
    """
    try:
        fs, path = storage.file_system(uri)
        fs.invalidate_cache(path.rpartition("/")[0])
        info = retried(lambda: _info(fs, path))
    except FileNotFoundError as error:
        raise _gone(uri) from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"The archive {uri} cannot be opened: {type(error).__name__}: {error}. Check the "
            "address, and for object stores the credentials in the environment."
        ) from error
    if info["type"] != "file":
        raise DataError(f"The archive {uri} is a folder: expected a file by its name.")
    return int(info["size"]), storage.version_of(info)


def _info(fs: Any, path: str) -> Any:
    return _answer(fs, fs._info, path) if isinstance(fs, S3FileSystem) else fs.info(path)


def _answer(fs: S3FileSystem, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a store answers, if it does so in the time in which one request would be given up.

    s3fs asks a silent store five times, and botocore each time twice: minutes for what is one try
    of ``store_faults.retried``.

    Raises:
        TimeoutError: it did not.
    """
    waits = ("connect_timeout", "read_timeout")
    most_s = sum(float(fs.config_kwargs.get(name, getattr(fs, name))) for name in waits)
    try:
        return sync(fs.loop, method, *args, timeout=most_s, **named)
    except FSTimeoutError as error:
        raise TimeoutError(f"the store did not answer for {most_s:g} s") from error


def _gone(uri: str) -> DataError:
    """The error of an archive that is not there, as a whole share may be."""
    return DataError(f"The archive {uri} does not exist: check the path.", "missing")


def fetch(
    uri: str, start: int | None = None, end: int | None = None, version: str | None = None
) -> bytes:
    """A whole file or a range of its bytes: one request, which is not made again if it fails.

    Whether the file is still the one that was listed costs no request on S3, where the condition
    travels with the request, and none on a disk, where the open file is asked.

    Args:
        uri: of the file.
        start: of the range; with ``end``, or neither.
        end: of the range; fewer bytes come where the file ends before.
        version: that the file must have, see ``storage.version_of``.

    Raises:
        DataError: the file has another version, or is none: a device or a pipe, say.
        FileNotFoundError: it is gone.
    """
    if start is not None and end is not None and start >= end:
        return b""
    fs, path = locate(uri)
    if isinstance(fs, S3FileSystem):
        return _fetch_s3(fs, path, start, end, version)
    if isinstance(fs, LocalFileSystem):
        return _fetch_local(path, start, end, version)
    if version is not None:
        fs.invalidate_cache(path.rpartition("/")[0])
        if storage.version_of(fs.info(path)) != version:
            raise changed(uri)
    data: bytes = fs.cat_file(path, start=start, end=end)
    return data


def fetch_patiently(uri: str, start: int, end: int, version: str | None) -> bytes:
    """A range of a file's bytes, all of them; a busy store is asked again.

    Args:
        uri: of the file.
        start: of the range.
        end: of the range, not behind the file's end: fewer bytes are an answer that was cut short.
        version: see ``fetch``.
    """
    return retried(lambda: _all_of(uri, start, end, version))


def _all_of(uri: str, start: int, end: int, version: str | None) -> bytes:
    data = fetch(uri, start, end, version)
    if len(data) < end - start:
        raise http.client.IncompleteRead(data, end - start - len(data))
    return data


def changed(uri: str) -> DataError:
    """The error of a file that is not the one that was listed."""
    return DataError(f"{uri} changed since it was listed: score it in a run of its own.", "changed")


def open_regular(path: str) -> BinaryIO:
    """Open a local file, but nothing that ends never or lets its reader wait.

    Raises:
        DataError: it is a device, a pipe or a folder.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path} is no regular file: expected a picture, not a device or a pipe.")
    return cast(BinaryIO, os.fdopen(descriptor, "rb"))


def _fetch_local(path: str, start: int | None, end: int | None, version: str | None) -> bytes:
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if version is not None:
            info = {"mtime": status.st_mtime, "size": status.st_size}
            if storage.version_of(info) != version:
                raise changed(path)
        if start is None:
            return file.read()
        file.seek(start)
        return file.read(-1 if end is None else max(0, min(end, status.st_size) - start))


def _fetch_s3(
    fs: S3FileSystem, path: str, start: int | None, end: int | None, version: str | None
) -> bytes:
    bucket, key, _ = fs.split_path(path)
    condition: dict[str, Any] = {}
    if version is not None:
        condition["IfMatch"] = f'"{version}"'
    if start is not None:
        condition["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    try:
        response = _answer(fs, fs._call_s3, "get_object", Bucket=bucket, Key=key, **condition)
        data: bytes = sync(fs.loop, response["Body"].read)
    except OSError as error:
        if version is not None and _answered(error, _PRECONDITION_FAILED):
            raise changed(f"s3://{path}") from error
        if start == 0 and _answered(error, _RANGE_NOT_SATISFIABLE):
            return b""
        raise
    return data


def _answered(error: OSError, wanted: tuple[int, str]) -> bool:
    """Whether a store answered with a status of HTTP or its code; the words are each store's."""
    answer: Any = getattr(error.__cause__, "response", None) or {}
    status, code = wanted
    return bool(
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == status
        or answer.get("Error", {}).get("Code") == code
    )
