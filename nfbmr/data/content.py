"""Pictures as bytes: fetched from where they lie, named by their content."""

from __future__ import annotations

import hashlib

import fsspec

from nfbmr.errors import DataError


def content_hash(data: bytes) -> str:
    """32 hexadecimal digits that name these bytes (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_bytes(uri: str) -> bytes:
    """The bytes behind a path or URI.

    Raises:
        DataError: they cannot be read; the message names the URI and the reason.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise DataError(f"{uri} does not exist (any more).") from error
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error}.") from error
    return data
