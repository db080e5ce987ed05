"""Zip archives: the central directory, and one member by one range request."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

from nfbmr.data.archive_entry import ArchiveEntry, ArchiveListing, place, printable, whole
from nfbmr.data.ranges import fetch_range
from nfbmr.errors import DataError

_HEADER = struct.Struct("<4s5H3I2H")
_HEADER_SLACK_BYTES = 1024
_DESCRIPTOR_BYTES = 16
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8
_ZIP64 = 0xFFFFFFFF


def list_zip(uri: str, file: BinaryIO, listing: ArchiveListing) -> None:
    """List the members that the central directory names."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        listing.problems.append(f"it is no readable zip or was cut off ({error})")
        return
    for info in members:
        if not info.is_dir():
            name = printable(info.filename)
            listing.add(ArchiveEntry(uri, name, info.header_offset, info.file_size))


def read_zip_member(entry: ArchiveEntry) -> bytes:
    """Read the local header and the data behind it, usually by one request.

    The central directory is not needed again: it gave the place and the length.
    """
    start, length = place(entry)
    guess = _HEADER.size + _HEADER_SLACK_BYTES + length + length // 8
    raw = fetch_range(entry.archive, start, start + guess)
    if len(raw) < _HEADER.size or not raw.startswith(b"PK\3\4"):
        raise DataError(
            f"{entry.image_uri} is not at byte {start} of its archive: the archive is damaged, or "
            "changed since it was listed."
        )
    _, _, flags, method, _, _, crc, packed, _, name, extra = _HEADER.unpack_from(raw)
    if flags & _ENCRYPTED:
        raise DataError(f"{entry.image_uri} is encrypted: pack it without a password.")
    body = _HEADER.size + name + extra
    is_known = not flags & _SIZES_FOLLOW and packed != _ZIP64
    needed = body + (packed if is_known else length + length // 8) + _DESCRIPTOR_BYTES
    if len(raw) == guess < needed:  # else the archive ends here
        raw += fetch_range(entry.archive, start + len(raw), start + needed)
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
