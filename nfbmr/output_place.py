"""Where a job is told to write: looked at before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from nfbmr.errors import OutputError
from nfbmr.storage import absolute_uri, file_system


def check_place(uri: str, *, is_file: bool = False) -> None:
    """Refuse an address at which nothing can be written, before any work is done for it.

    Args:
        uri: of a folder, or of a file.
        is_file: which of both.

    Raises:
        OutputError: its protocol is unknown, a part of its path is a file, or the file is a folder.
        ConfigError: see ``absolute_uri``.
    """
    uri = absolute_uri(uri)
    try:
        fs, path = file_system(uri)
    except (ValueError, ImportError) as error:
        raise OutputError(f"{uri} cannot be written to: {error}. Check its protocol.") from error
    if not isinstance(fs, LocalFileSystem):
        return
    place = Path(path)
    if is_file and place.is_dir():
        raise OutputError(f"{uri} is a folder: name a file in it.")
    for part in place.parents if is_file else (place, *place.parents):
        if part.is_file():
            raise OutputError(f"{part} is a file: {uri} needs a folder there; choose another one.")
