"""What a damaged header of a tar still says: a hint only, any of it may be what is damaged."""

from __future__ import annotations

import re
import tarfile

from nfbmr.data.tar_headers import BLOCK_BYTES, EXTENDED, Read, looks_like_header, padded

_MAGIC = b"ustar"
_MAGIC_PLACE = slice(257, 262)
_SIZE_PLACE = slice(124, 136)
_TYPE_PLACE = slice(156, 157)
_LONG_NAME_TYPES = (b"L", b"K")
_SHORT_NAME_BYTES = 100
_LONG_NAME_MARK = b"././@LongLink"
_PAX_RECORD = re.compile(rb"\d{1,20} [^=\n]+=")


def was_header(block: bytes) -> bool:
    """Whether a block that is no header can still be made out as one.

    Args:
        block: of 512 bytes; fewer are none.
    """
    found = block[_MAGIC_PLACE]
    return len(found) == len(_MAGIC) and sum(map(int.__ne__, found, _MAGIC)) <= 1


def behind_data(block: bytes, place: int) -> int | None:
    """Where the next header should be, by the size that is left of a damaged one.

    Args:
        block: the damaged header.
        place: where it lies.

    Returns:
        A place behind it, or None where no size can be made out.
    """
    size = _size(block)
    return place + BLOCK_BYTES + padded(size) if size is not None else None


def was_extended(read: Read, place: int) -> bool:
    """Whether a damaged header belonged to the header behind it, which is not to be trusted then.

    Args:
        read: of the archive.
        place: of the damaged header.
    """
    block = read(place, BLOCK_BYTES)
    kind = block[_TYPE_PLACE]
    if _PAX_RECORD.match(read(place + BLOCK_BYTES, BLOCK_BYTES)):
        return True
    if looks_like_header(block):  # what is damaged is the data behind it
        return kind in EXTENDED
    if kind not in _LONG_NAME_TYPES and not block.startswith(_LONG_NAME_MARK):
        return False
    content = read(place + BLOCK_BYTES, _size(block) or 0)
    return len(content) > _SHORT_NAME_BYTES and content.find(b"\0") == len(content) - 1


def _size(block: bytes) -> int | None:
    if not was_header(block):
        return None
    try:
        size = int(tarfile.nti(block[_SIZE_PLACE]))  # type: ignore[attr-defined]
    except tarfile.HeaderError:
        return None
    return size if size >= 0 else None
