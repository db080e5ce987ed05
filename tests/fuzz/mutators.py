"""Changing valid input a little, so that it gets past the first check and breaks something deeper.

All randomness comes from the generator that is passed in: a seed names an input for ever.
"""

import json
import random
from typing import Any

_EDGES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 511, 512, 513, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_WORDS = (
    b"",
    b"\0" * 512,
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"ustar\x0000",
    b"././@LongLink",
    b"../../etc/passwd",
    b"/absolute.png",
    b"II*\0",
    b"\xff\xd8\xff\xe1",
    b"IHDR",
    b"PAR1",
    b"NaN",
    b"-1",
    b"99999999999999999999",
    b"1e400",
    b"[[",
    b'{"a":',
    b"\x80\x04cposix\nsystem\n",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    "",
    "x",
    "\0",
    "../..",
    "s3://",
    "é" * 300,
    [],
    [None],
    {},
    {"a": 1},
)


def mutated_bytes(source: random.Random, data: bytes, other: bytes) -> bytes:
    """Data after one to six random changes.

    Args:
        source: of all choices.
        data: valid input.
        other: another valid input, to splice with.
    """
    result = bytearray(data)
    for _ in range(source.randint(1, 6)):
        _CHANGES[source.randrange(len(_CHANGES))](source, result, other)
    return bytes(result)


def _flip(source: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[_place(source, data)] ^= 1 << source.randrange(8)


def _overwrite(source: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(source, data)
    size = source.choice((1, 2, 4, 8))
    value = source.choice(_EDGES) % 256**size
    data[at : at + size] = value.to_bytes(size, source.choice(("little", "big")))


def _insert(source: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(source, data)
    data[at:at] = source.choice((source.choice(_WORDS), source.randbytes(source.randint(1, 16))))


def _replace(source: random.Random, data: bytearray, other: bytes) -> None:
    at, word = _place(source, data), source.choice(_WORDS)
    data[at : at + len(word)] = word


def _remove(source: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(source, data)
    del data[at : at + source.choice((1, 4, 16, 512, len(data)))]


def _repeat(source: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(source, data)
    data[at:at] = bytes(data[at : at + source.choice((1, 16, 512))]) * source.randint(1, 8)


def _splice(source: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(source, data)
    data[at:] = other[source.randint(0, len(other)) :]


_CHANGES = (_flip, _flip, _overwrite, _overwrite, _insert, _replace, _remove, _repeat, _splice)


def _place(source: random.Random, data: bytearray) -> int:
    """Anywhere; half of the time in the first 512 bytes, where headers are."""
    limit = min(len(data), 512) if source.random() < 0.5 else len(data)
    return source.randrange(limit) if limit else 0


def with_tar_checksums(data: bytes) -> bytes:
    """The data with every 512-byte block that looks like a tar header given a right checksum.

    Without it nearly every change ends at the checksum and nothing behind it is reached.
    """
    result = bytearray(data)
    for start in range(0, len(result) - 511, 512):
        block = result[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 32
            result[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(result)


def mutated_json(source: random.Random, data: bytes) -> bytes:
    """JSON with some of its values replaced, removed, renamed or multiplied; still JSON."""
    value = json.loads(data)
    for _ in range(source.randint(1, 3)):
        value = _changed(source, value, depth=source.randint(0, 5))
    return json.dumps(value).encode()


def _changed(source: random.Random, value: Any, depth: int) -> Any:
    if depth == 0 or not isinstance(value, (dict, list)) or not value:
        return source.choice(_VALUES)
    if isinstance(value, list):
        changed = list(value)
        at = source.randrange(len(changed))
        changed[at] = _changed(source, changed[at], depth - 1)
        return changed * source.choice((1, 1, 1, 2))
    fields = dict(value)
    key = source.choice(list(fields))
    what = source.random()
    if what < 0.15:
        del fields[key]
    elif what < 0.25:
        fields[key + "_"] = fields.pop(key)
    else:
        fields[key] = _changed(source, fields[key], depth - 1)
    return fields
