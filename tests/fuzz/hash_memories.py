"""What earlier nights remember of pictures, as an input: whole files, and signed bodies."""

import hashlib
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from nfbmr.progress import Progress
from nfbmr.train.hash_memory import HashMemory

_CATEGORY = "bottle"
_HASHES = {"/parts/bottle/1.png": "a" * 32, "/parts/bottle/2.png": "b" * 32}


def _memory(folder: Path) -> HashMemory:
    versions = dict.fromkeys(_HASHES, "1764000000.0/12")
    return HashMemory(str(folder), "/parts", versions, Progress(quiet=True))


def _signed(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode() + b"\n" + data


@cache
def seed() -> tuple[str, bytes]:
    """Name and content of a valid file."""
    with TemporaryDirectory() as folder:
        _memory(Path(folder)).keep(_CATEGORY, _HASHES, {})
        (path,) = Path(folder).iterdir()
        values = json.loads(path.read_bytes().partition(b"\n")[2])
        return path.name, _signed(json.dumps(values | {"at": 1764000000.0}).encode())


def body() -> bytes:
    """The JSON of a valid file."""
    return seed()[1].partition(b"\n")[2]


def whole_file(data: bytes, folder: Path) -> None:
    """Read a file as a night does; only the one that was written counts."""
    name, valid = seed()
    (folder / name).write_bytes(data)
    found = _memory(folder).known(_CATEGORY, _HASHES)
    if found != (_HASHES if data == valid else {}):
        raise AssertionError("a changed memory was trusted, or a whole one was not")


def signed_body(data: bytes, folder: Path) -> None:
    """Read a body with a digest that fits: what whoever may write to the cache can make."""
    name, _ = seed()
    (folder / name).write_bytes(_signed(data))
    found = _memory(folder).known(_CATEGORY, _HASHES)
    if not all(isinstance(value, str) and len(value) == 32 for value in found.values()):
        raise AssertionError("what is no content hash was taken for one")
