"""Pictures as bytes: fetched from where they lie, named by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec

from nfbmr.errors import STORE_ERRORS, DataError


def content_hash(data: bytes) -> str:
    """32 hexadecimal digits that name these bytes (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_bytes(uri: str) -> bytes:
    """The bytes behind a path or URI.

    Raises:
        DataError: they cannot be read; the message names the URI and the reason.
    """
    try:
        # fsspec would take "::" in a local name for a chain of file systems.
        if "://" not in uri:
            return Path(uri).read_bytes()
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise DataError(f"{uri} does not exist (any more).") from error
    except STORE_ERRORS as error:
        raise DataError(f"{uri} cannot be read: {error}.") from error
    return data
