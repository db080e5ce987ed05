"""Files and byte ranges of files on any fsspec file system."""

from __future__ import annotations

from typing import BinaryIO, cast

from nfbmr import storage
from nfbmr.errors import DataError


def open_file(uri: str) -> BinaryIO:
    """Open an archive for reading and seeking.

    Raises:
        DataError: it is missing or out of reach.
    """
    try:
        fs, path = storage.file_system(uri)
        return cast(BinaryIO, fs.open(path, "rb"))
    except FileNotFoundError as error:
        raise DataError(f"The archive {uri} does not exist: check the path.") from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"The archive {uri} cannot be opened: {type(error).__name__}: {error}. Check the "
            "address, and for object stores the credentials in the environment."
        ) from error


def fetch_range(uri: str, start: int, end: int) -> bytes:
    """Bytes of a file by one range request; fewer where the file ends before."""
    if start >= end:
        return b""
    fs, path = storage.file_system(uri)
    data: bytes = fs.cat_file(path, start=start, end=end)
    return data
