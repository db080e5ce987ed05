"""Seek indexes of compressed tars on disk or in an object store: what the plan says, or none.

An index is read by code in C, which must not see anything but what it wrote itself. Its name says
how long it is and its SHA-256, and the name stands in the plan: where the file is another one, is
damaged or gone, it is as if there were none.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from nfbmr import storage
from nfbmr.data.ranges import fetch
from nfbmr.store_faults import retried

_NAME = re.compile(r"-(\d{1,10})-([0-9a-f]{64})\.gzidx")


def save_index(stream: Any, keep: str, archive: str, version: str | None) -> str:
    """Write the index of a stream.

    Args:
        stream: an ``IndexedGzipFile``.
        keep: the folder for it.
        archive: the address of what the stream reads.
        version: of that file.

    Returns:
        Where it lies.
    """
    source = hashlib.blake2b(f"{archive} {version}".encode(), digest_size=12).hexdigest()
    with tempfile.NamedTemporaryFile("wb", prefix="nfbmr-index-") as local:
        stream.export_index(fileobj=local)
        local.flush()
        with Path(local.name).open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
            uri = storage.join(keep, f"{source}-{written.tell()}-{digest}.gzidx")
            written.seek(0)
            with storage.open_atomically(uri) as file:
                shutil.copyfileobj(written, file)
    return uri


def read_index(uri: str, most_bytes: int) -> bytes | None:
    """The index that was written there; None where it is gone, or is not that one.

    Args:
        uri: as ``save_index`` gave it.
        most_bytes: a larger one is not read.

    Raises:
        Exception: whatever a store raises that does not answer or refuses.
    """
    named = _NAME.search(uri)
    if named is None or int(named[1]) > most_bytes:
        return None
    size, digest = int(named[1]), named[2]
    try:
        data = retried(lambda: fetch(uri, 0, size + 1))
    except FileNotFoundError:
        return None
    is_whole = len(data) == size and hashlib.sha256(data).hexdigest() == digest
    return data if is_whole else None
