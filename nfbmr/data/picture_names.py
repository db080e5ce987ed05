"""Which files are pictures, by their names."""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.decoding import PICTURE_SUFFIXES


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture; hidden files are none."""
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
