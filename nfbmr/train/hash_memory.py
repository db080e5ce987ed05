"""What earlier nights learned of pictures: their content, by their place and version.

A picture whose version (an object's ETag, a file's time and size) is that of the night before need
not be read again to know that it has not changed.

``<root>/<data root and category>.json`` is a digest, and below it a JSON object: when it was
written, and the content hash of every picture by a hash of its URI and version. It has tonight's
pictures alone, so that it does not grow; a damaged one counts as none, and the pictures are read.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nfbmr import plain_values, storage, store_folders
from nfbmr.progress import Progress
from nfbmr.train.night import tolerated

_WRITTEN_AGAIN_AFTER_S = 7 * 86400.0
_KEPT_S = 60 * 86400.0
_LARGEST_BYTES = 2**28
_HASH = re.compile(r"[0-9a-f]{32}")
_ENCODING = ("utf-8", "surrogateescape")
_NO_TIME = "None/"
"""With what ``storage.version_of`` begins where a store tells neither ETag nor time."""


@dataclass
class HashMemory:
    """Content hashes of the pictures of one data root.

    Attributes:
        root: folder or ``s3://`` prefix of the files; empty remembers nothing.
        data: the data root.
        versions: of tonight's pictures, by URI, as they were listed, which was before any is read:
            one that is replaced in between has another version the next night, and is read again.
        progress: told where something cannot be read or written.
    """

    root: str
    data: str
    versions: Mapping[str, str]
    progress: Progress
    _written_at: dict[str, float] = field(default_factory=dict)

    def known(self, category: str, uris: Iterable[str]) -> dict[str, str]:
        """The content hashes by URI, of pictures that have not changed since they were read.

        Args:
            category: of the pictures.
            uris: of those that are asked for.
        """
        kept = self._kept(category) if self.root else {}
        found = {uri: kept.get(self._key(uri) or "") for uri in uris} if kept else {}
        return {uri: name for uri, name in found.items() if name is not None}

    def keep(self, category: str, hashes: Mapping[str, str], known: Mapping[str, str]) -> None:
        """Remember what tonight's pictures of a category are; nothing else is kept of it.

        Args:
            category: of the pictures.
            hashes: of all of them, by URI.
            known: what ``known`` gave: where it is the same, little is written.
        """
        now = time.time()
        is_old = now - self._written_at.get(category, 0.0) > _WRITTEN_AGAIN_AFTER_S
        if not self.root or (hashes.keys() == known.keys() and not is_old):
            return
        keys = ((self._key(uri), name) for uri, name in hashes.items())
        values = {"at": now, "hashes": {key: name for key, name in keys if key is not None}}
        body = json.dumps(values).encode()
        with tolerated(self.progress, f"What the pictures of {category} are is not remembered"):
            storage.write_atomically(self._file(category), _digest(body) + b"\n" + body)

    def forget_old(self) -> None:
        """Remove files of categories and data roots that nobody compared for two months."""
        if not self.root:
            return
        with tolerated(self.progress, f"{self.root} could not be bounded"):
            files = store_folders.list_tree(self.root)
            old = [name for name, f in files.items() if time.time() - f.changed_at > _KEPT_S]
            store_folders.remove_files(self.root, old)

    def _kept(self, category: str) -> dict[str, str]:
        """Hashes by key; nothing where there are none or the file is damaged."""
        uri, data = self._file(category), None
        with tolerated(self.progress, f"What the pictures of {category} were is not known"):
            data = _read(uri)
        if data is None:
            return {}
        try:
            values = _checked(data)
        except (ValueError, TypeError, KeyError, RecursionError):
            self.progress.say(f"{uri} is damaged: the pictures of {category} are read again")
            return {}
        self._written_at[category] = values["at"]
        return dict(values["hashes"])

    def _file(self, category: str) -> str:
        digest = _digest(f"{self.data}\0{category}".encode(*_ENCODING)).decode()
        return storage.join(self.root, f"{digest}.json")

    def _key(self, uri: str) -> str | None:
        """None of a picture whose version tells nothing."""
        version = self.versions.get(uri)
        if version is None or version.startswith(_NO_TIME):
            return None
        return _digest(f"{uri}\0{version}".encode(*_ENCODING)).decode()


def _read(uri: str) -> bytes | None:
    """The file, or None where there is none or it is larger than one of ours."""
    try:
        return storage.read(uri) if storage.size(uri) <= _LARGEST_BYTES else None
    except FileNotFoundError:
        return None


def _checked(data: bytes) -> dict[str, Any]:
    """What ``keep`` wrote.

    Raises:
        ValueError: it is something else; TypeError and KeyError likewise.
    """
    digest, _, body = data.partition(b"\n")
    if digest != _digest(body):
        raise ValueError("the digest does not fit")
    values = plain_values.mapping(json.loads(body))
    plain_values.number(values["at"])
    for name in plain_values.mapping(values["hashes"]).values():
        if not _HASH.fullmatch(plain_values.text(name)):
            raise ValueError(f"{name!r:.40} is no content hash")
    return values


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()
