"""Pictures as bytes: fetched from where they lie, named by their content."""

from __future__ import annotations

import hashlib
import os

from fsspec import AbstractFileSystem

from nfbmr import storage
from nfbmr.data.picture_file import DEFAULT_LIMITS
from nfbmr.data.ranges import open_regular
from nfbmr.errors import STORE_ERRORS, DataError, StoreError
from nfbmr.store_faults import StoreFault, fault_of, retried


def content_hash(data: bytes) -> str:
    """32 hexadecimal digits that name these bytes (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_bytes(uri: str, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> bytes:
    """The bytes behind a path or URI; a store that is busy is asked again.

    Args:
        uri: of a picture.
        max_bytes: more are not read.

    Raises:
        DataError: they cannot be read, or are too many; the message names the URI and the reason.
        StoreError: the store refuses whatever it is asked for.
    """
    try:
        # fsspec would take "::" in a local name for a chain of file systems.
        if "://" not in uri:
            return retried(lambda: _read_local(uri, max_bytes))
        fs, path = storage.file_system(uri)
        data: bytes = retried(lambda: _read(fs, path, uri, max_bytes))
    except FileNotFoundError as error:
        raise DataError(f"{uri} does not exist (any more).") from error
    except STORE_ERRORS as error:
        if fault_of(error) is StoreFault.REFUSES_ALL:
            raise StoreError(
                f"{uri} cannot be read: {error}. The store refuses everything: renew the "
                "credentials in the environment."
            ) from error
        raise DataError(f"{uri} cannot be read: {error}.") from error
    return data


def _read_local(path: str, max_bytes: int) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(path, size, max_bytes)
        return file.read(size)


def _read(fs: AbstractFileSystem, path: str, uri: str, max_bytes: int) -> bytes:
    with fs.open(path, "rb") as file:
        _check_size(uri, file.size, max_bytes)
        data: bytes = file.read()
        return data


def _check_size(uri: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        text = f"{uri} has {size_bytes} bytes, more than the limit of {max_bytes}."
        raise DataError(text, "too_large")
