"""Zip archives: the central directory, and one member by one range request.

Format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 (records) and 4.5.3 (ZIP64).
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from nfbmr.data.archive_entry import (
    ENTRIES,
    ArchiveEntry,
    ArchiveListing,
    EntryRows,
    place,
    printable,
    whole,
)
from nfbmr.data.lister import WholeLister
from nfbmr.data.picture_names import is_picture
from nfbmr.data.ranges import fetch, fetch_patiently
from nfbmr.errors import DataError

_HEADER = struct.Struct("<4s5H3I2H")
_HEADER_SLACK_BYTES = 1024
_DESCRIPTOR_BYTES = 16
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_LARGEST = 2**63 - 1
_ZIP64 = 0xFFFFFFFF
_END = struct.Struct("<4s4H2IH")
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_MAX_COMMENT_BYTES = 65_535
_PIECE_BYTES = 8 * 2**20
_LONGEST_ENTRY_BYTES = _ENTRY.size + 3 * 65_535


class _ZipDamageError(ValueError):
    """A record that is not where it should be."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the central directory lies.

    Attributes:
        start: in the file.
        size: in bytes.
        entries: how many it says it has.
        shift: bytes before the archive, such as a script that unpacks it.
    """

    start: int
    size: int
    entries: int
    shift: int


class ZipLister(WholeLister):
    """Lists the members that the central directory names.

    Args:
        archive: its address.
        size: in bytes.
        version: of its file.
    """

    def __init__(self, archive: str, size: int, version: str) -> None:
        super().__init__(archive, version)
        self._size = size
        self._file_version = version

    def list_whole(self) -> ArchiveListing:
        """Read the central directory: two requests, and one more for every 8 MiB of it."""
        uri = self.archive
        listing = ArchiveListing(uri, version=self.version)
        rows = EntryRows(ENTRIES)
        found = 0
        try:
            directory = _find_directory(uri, self._size, self._file_version)
            for name, offset, length in _entries(uri, directory, self._file_version):
                found += 1
                if is_picture(name) and not name.endswith("/"):
                    rows.add((name, offset, length, None, None, None))
                elif not name.endswith("/"):
                    listing.skipped_members += 1
            if found != directory.entries:
                raise _ZipDamageError(f"its directory names {found} of {directory.entries} members")
        except _ZipDamageError as error:
            listing.problems.append(
                f"{uri} is no whole zip or was cut off ({error}), after {len(rows)} pictures"
            )
        listing.table = rows.table()
        return listing


def _find_directory(uri: str, size: int, version: str) -> _Directory:
    """Read the end of the archive, by one request; with ZIP64 usually by one as well."""
    slack = _END.size + _MAX_COMMENT_BYTES + _END64_PLACE.size + _END64.size
    begin = max(0, size - slack)
    tail = fetch_patiently(uri, begin, size, version)
    place_of_end = tail.rfind(b"PK\5\6")
    if place_of_end < 0 or len(tail) - place_of_end < _END.size:
        raise _ZipDamageError("there is no end record")
    *_, entries, length, offset, _ = _END.unpack_from(tail, place_of_end)
    end = begin + place_of_end
    pointer = place_of_end - _END64_PLACE.size
    if pointer >= 0 and tail.startswith(b"PK\6\7", pointer):
        end, entries, length, offset = _read_end64(uri, tail, begin, pointer, version)
    shift = end - length - offset
    if shift < 0:
        raise _ZipDamageError("its directory does not fit before the end record")
    return _Directory(offset + shift, length, entries, shift)


def _read_end64(
    uri: str, tail: bytes, begin: int, pointer: int, version: str
) -> tuple[int, int, int, int]:
    """Place of the ZIP64 end record, and its entries, length and offset of the directory."""
    stated = _END64_PLACE.unpack_from(tail, pointer)[2]
    own = begin + pointer - _END64.size
    for start in (stated, own):
        if not 0 <= start <= own:
            continue
        record = (
            tail[start - begin : start - begin + _END64.size]
            if start >= begin
            else fetch_patiently(uri, start, start + _END64.size, version)
        )
        if len(record) == _END64.size and record.startswith(b"PK\6\6"):
            *_, entries, length, offset = _END64.unpack(record)
            return start, entries, length, offset
    raise _ZipDamageError("the ZIP64 end record is not where it should be")


def _entries(uri: str, directory: _Directory, version: str) -> Iterator[tuple[str, int, int]]:
    """Name, place of the local header and unpacked length of every member."""
    stop = directory.start + directory.size
    fetched = directory.start
    data, place_in_data = b"", 0
    while fetched < stop or place_in_data < len(data):
        if fetched < stop and len(data) - place_in_data < _LONGEST_ENTRY_BYTES:
            upper = min(stop, fetched + _PIECE_BYTES)
            data = data[place_in_data:] + fetch_patiently(uri, fetched, upper, version)
            fetched, place_in_data = upper, 0
        if not data.startswith(b"PK\1\2", place_in_data):
            raise _ZipDamageError("its directory is damaged")
        try:
            values = _ENTRY.unpack_from(data, place_in_data)
            lengths = values[10:13]
            end = place_in_data + _ENTRY.size + sum(lengths)
            yield _entry(data[place_in_data + _ENTRY.size : end], values, directory.shift)
        except struct.error as error:
            raise _ZipDamageError("its directory is cut off") from error
        place_in_data = end


def _entry(texts: bytes, values: tuple[int, ...], shift: int) -> tuple[str, int, int]:
    flags, packed, length, offset = values[3], values[8], values[9], values[16]
    name_bytes, extra_bytes = values[10], values[11]
    if len(texts) < name_bytes + extra_bytes:
        raise _ZipDamageError("its directory is cut off")
    name = _name(texts[:name_bytes], flags)
    if _ZIP64 in (length, packed, offset):
        extra = texts[name_bytes : name_bytes + extra_bytes]
        length, packed, offset = _large_numbers(extra, length, packed, offset)
    if max(offset + shift, length) > _LARGEST:
        raise _ZipDamageError(f"{name!r} would lie at byte {offset + shift}, of {length} bytes")
    return name, offset + shift, length


def _name(raw: bytes, flags: int) -> str:
    raw = raw.split(b"\0", 1)[0]
    text = raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
    return printable(text)


def _large_numbers(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Numbers that do not fit into 32 bits, from the ZIP64 field: in order, only those needed."""
    start = 0
    while start + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, start)
        if kind == 1:
            count = sum(number == _ZIP64 for number in numbers)
            if size < 8 * count or start + 4 + 8 * count > len(extra):
                raise _ZipDamageError("a ZIP64 field is too short")
            large = iter(struct.unpack_from(f"<{count}Q", extra, start + 4))
            return tuple(next(large) if number == _ZIP64 else number for number in numbers)
        start += 4 + size
    return numbers


def read_zip_member(entry: ArchiveEntry) -> bytes:
    """Read the local header and the data behind it, usually by one request.

    The central directory is not needed again: it gave the place and the length.
    """
    start, length = place(entry)
    guess = _HEADER.size + _HEADER_SLACK_BYTES + length + length // 8
    raw = fetch(entry.archive, start, start + guess, entry.version)
    if len(raw) < _HEADER.size or not raw.startswith(b"PK\3\4"):
        raise DataError(
            f"{entry.image_uri} is not at byte {start} of its archive: the archive is damaged, or "
            "changed since it was listed."
        )
    _, _, flags, method, _, _, crc, packed, _, name, extra = _HEADER.unpack_from(raw)
    if flags & _ENCRYPTED:
        raise DataError(f"{entry.image_uri} is encrypted: pack it without a password.")
    body = _HEADER.size + name + extra
    if packed != _ZIP64 and packed > length + length // 8 + _HEADER_SLACK_BYTES:
        raise DataError(
            f"{entry.image_uri} would be {packed} bytes packed and {length} unpacked: the "
            "archive's directory or the member's own header lies; pack it again."
        )
    is_known = not flags & _SIZES_FOLLOW and packed != _ZIP64
    needed = body + (packed if is_known else length + length // 8) + _DESCRIPTOR_BYTES
    if len(raw) == guess < needed:  # else the archive ends here
        raw += fetch(entry.archive, start + len(raw), start + needed, entry.version)
    if _name(raw[_HEADER.size : _HEADER.size + name], flags) != entry.member:
        raise DataError(
            f"{entry.image_uri} has another name in its own header: the archive's directory lies; "
            "pack it again."
        )
    data, rest = _unpacked(entry, method, raw[body:], length)
    if flags & _SIZES_FOLLOW:
        crc = int.from_bytes(rest.removeprefix(b"PK\7\x08")[:4], "little")
    if zlib.crc32(data) != crc:
        raise DataError(f"{entry.image_uri} is damaged: its checksum does not fit.")
    return data


def _unpacked(entry: ArchiveEntry, method: int, raw: bytes, length: int) -> tuple[bytes, bytes]:
    """The member's data, and the bytes that follow it."""
    if method == zipfile.ZIP_STORED:
        return whole(entry, raw[:length]), raw[length:]
    if method != zipfile.ZIP_DEFLATED:
        raise DataError(
            f"{entry.image_uri} is packed by zip method {method}: only stored (0) and deflate (8) "
            "are read; pack it again."
        )
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    data = unpacker.decompress(raw, length + 1)
    return whole(entry, data), unpacker.unused_data
