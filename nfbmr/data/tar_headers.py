"""The headers of tar archives: ustar, GNU long names and PAX, one member at a time.

A member is described by one header block, with extended headers before it that belong to it (its
real name or size). The chain of members can be followed from any place where a member begins.
Formats: POSIX.1-2017 "pax Interchange Format"; the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BLOCK_BYTES = 512
_MAGIC = b"ustar"
_MAGIC_PLACE = 257
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_GLOBAL = tarfile.XGLTYPE
EXTENDED = (_LONG_NAME, _LONG_LINK, _GLOBAL, *_PAX_TYPES)
"""Types of headers that say more of the member behind them."""

_MAX_EXTENDED_BYTES = 8 * 2**20
_MAX_DIGITS = 20
_EFFECTIVE_KEYS = ("path", "linkpath", "size", "GNU.sparse.name")
_SPARSE_MORE, _SPARSE_EXTRA_MORE = 482, 504
_ENCODING = ("utf-8", "surrogateescape")

Read = Callable[[int, int], bytes]
"""``read(start, count)``: bytes of the archive; fewer at its end."""


_LARGEST_BYTES = 2**62
"""More than any archive has, and far from where 64 bits end."""


class TarDamageError(ValueError):
    """A header that is none.

    Args:
        message: for people.
        place: of its block in the archive.
    """

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of a tar.

    Attributes:
        header: where its first header block begins, its extended headers included.
        name: of the member; bytes that are not UTF-8 as surrogate escapes.
        kind: the header's type.
        linkname: what a link points to.
        data: where its data begins.
        size: of its data in bytes.
        next: where the next member begins.
        is_sparse: stored without its holes.
        is_global: a header before it changes how all later members are read.
    """

    header: int
    name: str
    kind: bytes
    linkname: str
    data: int
    size: int
    next: int
    is_sparse: bool
    is_global: bool

    @property
    def is_file(self) -> bool:
        """Whether it has data of its own."""
        return self.kind in tarfile.REGULAR_TYPES

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.kind == tarfile.DIRTYPE

    @property
    def is_hard_link(self) -> bool:
        """Whether it is another name of an earlier member."""
        return self.kind == tarfile.LNKTYPE


def read_member(read: Read, start: int, inherited: Mapping[str, str]) -> TarMember | None:
    """The member that begins at a place.

    Args:
        read: of the archive.
        start: a multiple of 512.
        inherited: what global headers before this place say.

    Returns:
        The member, or None at a block of zeros or at the end of the archive.

    Raises:
        TarDamageError: there is no readable header.
    """
    values = dict(inherited)
    is_global = False
    place = start
    while True:
        header = _header(read(place, BLOCK_BYTES), place)
        if header is None:
            if place != start:
                text = f"an extended header at byte {start} has no member behind it"
                raise TarDamageError(text, place)
            return None
        data = place + BLOCK_BYTES
        if header.type not in EXTENDED:
            return _member(read, header, start, data, values, is_global)
        if not 0 <= header.size <= _MAX_EXTENDED_BYTES:
            text = f"the extended header at byte {place} claims {header.size} bytes"
            raise TarDamageError(text, place)
        content = read(data, header.size)
        if len(content) < header.size:
            raise TarDamageError(f"the extended header at byte {place} is cut off", place)
        found = _extended(header.type, content, place)
        is_global |= header.type == _GLOBAL and any(key in found for key in _EFFECTIVE_KEYS)
        values |= found
        place = data + padded(header.size)


def global_values(read: Read, start: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """What holds for the members behind the one at a place: its global headers and older ones."""
    values = dict(inherited)
    place = start
    while (header := _header(read(place, BLOCK_BYTES), place)) and header.type in EXTENDED:
        data = place + BLOCK_BYTES
        if header.type == _GLOBAL:
            values |= _extended(header.type, read(data, header.size), place)
        place = data + padded(header.size)
    return values


def looks_like_header(block: bytes) -> bool:
    """Whether a block of 512 bytes is a whole header with its checksum."""
    try:
        return _header(block, 0) is not None
    except TarDamageError:
        return False


def find_header(data: bytes, start: int) -> int | None:
    """The first place in some data, a multiple of 512, that may be a header.

    Old headers without the word ``ustar`` in them are not found.

    Args:
        data: of the archive, from a multiple of 512 on.
        start: where to begin, a multiple of 512.
    """
    found = data.find(_MAGIC, start + _MAGIC_PLACE)
    while found >= 0:
        place = found - _MAGIC_PLACE
        block = data[place : place + BLOCK_BYTES]
        if place % BLOCK_BYTES == 0 and len(block) == BLOCK_BYTES and looks_like_header(block):
            return place
        found = data.find(_MAGIC, found + 1)
    return None


def _header(block: bytes, place: int) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, *_ENCODING)
    except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
        return None
    except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
        return None
    except (tarfile.HeaderError, ValueError, ArithmeticError) as error:
        raise TarDamageError(f"no header at byte {place}: {error}", place) from error


def _member(
    read: Read,
    header: tarfile.TarInfo,
    start: int,
    data: int,
    values: Mapping[str, str],
    is_global: bool,
) -> TarMember:
    size = header.size
    if "size" in values:
        try:
            size = int(values["size"])
        except ValueError as error:
            text = f"the member at byte {start} has no number as size"
            raise TarDamageError(text, start) from error
    if size < 0:
        raise TarDamageError(f"the header at byte {start} points backwards", start)
    if size > _LARGEST_BYTES:
        raise TarDamageError(f"the member at byte {start} claims {size} bytes", start)
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE
    if is_sparse:
        data = _behind_sparse_map(read, data)
    has_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
    name = values.get("GNU.sparse.name", values.get("path", header.name))
    return TarMember(
        header=start,
        name=name.rstrip("/") if header.isdir() else name,
        kind=header.type,
        linkname=values.get("linkpath", header.linkname),
        data=data,
        size=size,
        next=data + (padded(size) if has_data else 0),
        is_sparse=is_sparse or any(key.startswith("GNU.sparse.") for key in values),
        is_global=is_global,
    )


def _behind_sparse_map(read: Read, data: int) -> int:
    """Where the data of an old GNU sparse member begins: behind the blocks with more of its map."""
    has_more = bool(read(data - BLOCK_BYTES, BLOCK_BYTES)[_SPARSE_MORE])
    while has_more:
        block = read(data, BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise TarDamageError(f"the sparse map at byte {data} is cut off", data)
        has_more = bool(block[_SPARSE_EXTRA_MORE])
        data += BLOCK_BYTES
    return data


def _extended(kind: bytes, content: bytes, place: int) -> dict[str, str]:
    """What an extended header says, in the words of PAX."""
    if kind in (_LONG_NAME, _LONG_LINK):
        text = content.split(b"\0", 1)[0].decode(*_ENCODING)
        return {"path" if kind == _LONG_NAME else "linkpath": text}
    values = {}
    start = 0
    while start < len(content) and content[start] != 0:
        blank = content.find(b" ", start, start + _MAX_DIGITS)
        digits = content[start : max(start, blank)]
        end = start + (int(digits) if digits.isdigit() else 0)
        key, sign, value = content[blank + 1 : end - 1].partition(b"=")
        is_whole = start < blank < end <= len(content) and content[end - 1 : end] == b"\n"
        if not (is_whole and sign):
            raise TarDamageError(f"the extended header at byte {place} is damaged", place)
        values[key.decode(*_ENCODING)] = value.decode(*_ENCODING)
        start = end
    return values


def padded(size: int) -> int:
    """The bytes that so many bytes of data take in an archive."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
