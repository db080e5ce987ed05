"""Listing folders of pictures on any fsspec file system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.picture_names import is_picture
from nfbmr.data.tree_listing import files_below
from nfbmr.errors import STORE_ERRORS, DataError
from nfbmr.store_faults import retried


class Tree:
    """All files below a root, listed once.

    Args:
        root: a folder or prefix: a path, ``file://`` or ``s3://`` URI.

    Attributes:
        root: absolute.
        files: names relative to the root, sorted; with their sizes in bytes.
        versions: of the files, see ``storage.version_of``.

    Raises:
        DataError: the root is missing, is no folder, is empty, or cannot be listed.
    """

    def __init__(self, root: str) -> None:
        self.root = storage.absolute_uri(root.rstrip("/") or root)
        try:
            self._fs, self._path = storage.file_system(self.root)
            self.files = retried(self._list)
        except STORE_ERRORS as error:
            raise DataError(
                f"{self.root} cannot be listed: {error}. Check the address, and for object stores "
                "the credentials in the environment."
            ) from error

    def _list(self) -> dict[str, int]:
        self._fs.invalidate_cache()
        if self._fs.isfile(self._path):
            raise DataError(f"{self.root} is a file: give the folder of pictures.")
        found = self._found()
        if not found:
            if self._fs.exists(self._path):
                raise DataError(f"{self.root} is empty: copy pictures there, or check the address.")
            raise DataError(f"{self.root} does not exist: check the path.")
        prefix = self._path.rstrip("/") + "/"
        files = {
            name.removeprefix(prefix): info
            for name, info in sorted(found.items())
            if info["type"] == "file"
        }
        self.versions = {name: storage.version_of(info) for name, info in files.items()}
        return {name: int(info.get("size") or 0) for name, info in files.items()}

    def _found(self) -> dict[str, Mapping[str, Any]]:
        """Files by path; on a disk a link is what it stands for, as in an archive to score."""
        if isinstance(self._fs, LocalFileSystem) and self._fs.isdir(self._path):
            return {info["name"]: info for info in files_below(self._fs, self._path)}
        found: dict[str, Mapping[str, Any]] = self._fs.find(self._path, detail=True)
        return found

    @property
    def pictures(self) -> list[str]:
        """The files that are pictures by their names, sorted."""
        return [name for name in self.files if is_picture(name)]

    def uri(self, name: str) -> str:
        """Where a file lies, as fsspec opens it; a plain path on a local disk."""
        if isinstance(self._fs, LocalFileSystem):
            return storage.join(self._path, name)
        return storage.join(self.root, name)

    def read_text(self, name: str) -> str:
        """A small text file.

        Raises:
            DataError: it is not UTF-8 text.
        """
        data = storage.read(self.uri(name)) or b""
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.uri(name)} is not a text file ({error}).") from error

    def stems(self, folder: str) -> dict[str, str]:
        """Pictures directly in a folder by their name without suffix."""
        found = {}
        for name in self.pictures:
            path = PurePosixPath(name)
            if str(path.parent) == folder.strip("/"):
                found[path.stem] = name
        return found
