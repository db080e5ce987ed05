"""Compressed tar archives: listed by one reader, who leaves a seek index for all others.

Without an index, every member has to be unpacked from the archive's beginning: n members cost n
times half the archive. One streaming reader would be linear too, but a unit holds one category and
its pictures may lie anywhere in the archive, and then one process would unpack while all others
wait. With a point to start from every megabyte or so (the inflater's state, 32 KiB), any worker
begins near the member that it wants. The index is built while the archive is listed, which reads
all of it anyway, and lies in the plan; a worker fetches and unpacks only the blocks it needs. Where
the index is not the one that was left there (``seek_index``), each worker makes its own.

How much an archive unpacks to is known at its end only. Where the points become too many for its
packed size, as in one of zeros, it is begun anew with fewer of them.
"""

from __future__ import annotations

import gzip
import io
import struct
import threading
from collections import OrderedDict
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from indexed_gzip import IndexedGzipFile

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveEntry, ArchiveListing, place, whole
from nfbmr.data.lister import WholeLister
from nfbmr.data.opened_archives import OpenedArchives
from nfbmr.data.ranges import changed, open_file, size_and_version
from nfbmr.data.seek_index import read_index, save_index
from nfbmr.data.tar_archive import Chain, follow
from nfbmr.data.tar_headers import Read
from nfbmr.data.tar_joining import listing_of

_MIN_SPACING_BYTES = 2**20
_MAX_POINTS = 4096
_POINT_BYTES = 2**15
_FEWEST_POINTS, _MOST_POINTS = 16, 2 * _MAX_POINTS
_SPREAD = 4
_STEP_BYTES = 64 * 2**20
_PACKED_PIECE_BYTES = 2**17
_LARGEST_BLOCK_BYTES = 32 * 2**20
_SPACING_IN_INDEX = struct.Struct("<23xI")
_CACHED_BYTES = 32 * 2**20
_FETCH_BYTES = 2**20


class CompressedTarLister(WholeLister):
    """Lists a compressed tar by one reader.

    Args:
        archive: its address.
        size: in bytes.
        version: of its file.
        keep: the folder to leave the seek index in, if any.
    """

    def __init__(self, archive: str, size: int, version: str, keep: str | None) -> None:
        super().__init__(archive, version)
        self._size = size
        self._keep = keep

    def list_whole(self) -> ArchiveListing:
        """Unpack the archive once: list it and build its seek index."""
        spacing, listed = spacing_bytes(self._size), None
        while listed is None:
            listed = self._listed_with_index(spacing)
            spacing *= _SPREAD
        chain, index = listed
        if chain.problem:
            # What is left of a damaged stream is given up in large pieces by the index's reader.
            with _open(self.archive) as file, gzip.GzipFile(fileobj=file) as plain:
                chain = follow(stream_reader(plain), 0, None, None)
        listing = listing_of(self.archive, [chain])
        listing.version = self.version
        listing.lookup = index
        return listing

    def _listed_with_index(self, spacing: int) -> tuple[Chain, str | None] | None:
        """The archive's chain, and where its index lies; None where that has too many points."""
        most = most_points(self._size)
        with _open(self.archive) as file:
            stream = _indexed(file, spacing)
            try:
                chain = follow(_mended(_bounded_reader(stream, most)), 0, None, None)
                return chain, self._save_index(stream, most) if self._keep is not None else None
            except _TooManyPointsError:
                return None

    def _save_index(self, stream: IndexedGzipFile, most: int) -> str:
        """Save the index; that of a damaged archive ends where the archive can be unpacked no more.

        Raises:
            Exception: whatever the storage raised.
        """
        _index_rest(stream, most)
        return save_index(stream, str(self._keep), self.archive, self.version)


def spacing_bytes(size: int) -> int:
    """Unpacked bytes between two points of the index of an archive of so many packed bytes."""
    return max(_MIN_SPACING_BYTES, size // _MAX_POINTS)


def most_points(size: int) -> int:
    """Points that the index of an archive of so many packed bytes may have: no more bytes."""
    return min(max(_FEWEST_POINTS, size // _POINT_BYTES), _MOST_POINTS)


class _TooManyPointsError(Exception):
    """An index would take too much memory."""


def _unpack_to(stream: IndexedGzipFile, place: int, end: int | None, most: int) -> int:
    """Unpack in steps, up to a place or the stream's end; returns the last place looked at.

    Raises:
        _TooManyPointsError: the index has more points than it may.
    """
    while end is None or place + _STEP_BYTES < end:
        place += _STEP_BYTES
        is_end = stream.seek(place) < place
        if sum(1 for _ in stream.seek_points()) > most:
            raise _TooManyPointsError
        if is_end:
            break
    return place


def _index_rest(stream: IndexedGzipFile, most: int) -> None:
    """Unpack to the end; of a damaged archive, to where it can be unpacked no more.

    Raises:
        _TooManyPointsError: the index has more points than it may.
        Exception: whatever the storage raised.
    """
    try:
        _unpack_to(stream, stream.tell(), None, most)
    except OSError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from error


def _bounded_reader(stream: IndexedGzipFile, most: int) -> Read:
    """Reads forwards as ``stream_reader`` does; an index that grows too large breaks it off."""
    read_at = stream_reader(stream)
    reached = 0

    def read(start: int, count: int) -> bytes:
        nonlocal reached
        reached = _unpack_to(stream, reached, start, most)
        return read_at(start, count)

    return read


def stream_reader(stream: Any) -> Read:
    """Reads from a stream that is sought only forwards where its user reads forwards."""

    def read(start: int, count: int) -> bytes:
        stream.seek(start)
        data: bytes = stream.read(count)
        return data

    return read


def _mended(read: Read) -> Read:
    """Errors told apart: the storage's as they were, those of the packed data as ``zlib`` would."""

    def read_or_raise(start: int, count: int) -> bytes:
        try:
            return read(start, count)
        except OSError as error:
            if error.__cause__ is not None:
                raise error.__cause__ from error
            raise gzip.BadGzipFile(f"it cannot be unpacked: {error}") from error

    return read_or_raise


def _open(archive: str) -> Any:
    fs, path = storage.file_system(archive)
    if isinstance(fs, LocalFileSystem):
        return open_file(archive)
    return fs.open(path, "rb", block_size=_FETCH_BYTES, cache_type="readahead")


def _indexed(file: Any, spacing: int) -> IndexedGzipFile:
    # What one packed piece unpacks to is indexed before anybody can look how much that is.
    return IndexedGzipFile(
        fileobj=file, spacing=spacing, buffer_size=2**16, readbuf_size=_PACKED_PIECE_BYTES
    )


class _IndexedArchive:
    """An open archive with its index; its last unpacked blocks are kept.

    Args:
        archive: its address.
        version: that it must have.
        index: where its index lies.
    """

    def __init__(self, archive: str, version: str | None, index: str) -> None:
        self._lock = threading.Lock()
        self._archive = archive
        self._version = version
        self._is_local = isinstance(storage.file_system(archive)[0], LocalFileSystem)
        self._file = _open(archive)
        size = self._check_version()
        data = read_index(index, 2 * most_points(size) * _POINT_BYTES)
        if data is None:
            self._stream, spacing = self._indexed_anew(size)
        else:
            (spacing,) = _SPACING_IN_INDEX.unpack_from(data)
            self._stream = _indexed(self._file, spacing)
            self._stream.import_index(fileobj=io.BytesIO(data))
        self._block_bytes = min(spacing, max(spacing_bytes(size), _LARGEST_BLOCK_BYTES))
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def _indexed_anew(self, size: int) -> tuple[IndexedGzipFile, int]:
        """The archive unpacked once, as its listing did, and the spacing of its points."""
        spacing = spacing_bytes(size)
        while True:
            stream = _indexed(self._file, spacing)
            try:
                _index_rest(stream, most_points(size))
                return stream, spacing
            except _TooManyPointsError:
                self._file = _open(self._archive)
                spacing *= _SPREAD

    def _check_version(self) -> int:
        size, found = size_and_version(self._archive)
        if self._version is not None and found != self._version:
            raise changed(self._archive)
        return size

    def read(self, start: int, length: int) -> bytes:
        """Some unpacked bytes; fewer at the end."""
        if self._is_local:  # s3fs asks for the version that it opened, an open file may change
            self._check_version()
        first, last = start // self._block_bytes, (start + max(1, length) - 1) // self._block_bytes
        with self._lock:
            data = b"".join([self._block(number) for number in range(first, last + 1)])
        begin = start - first * self._block_bytes
        return data[begin : begin + length]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._blocks[number] = self._unpack(number)
            while len(self._blocks) > max(2, _CACHED_BYTES // self._block_bytes):
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _unpack(self, number: int) -> bytes:
        read = _mended(stream_reader(self._stream))
        return read(number * self._block_bytes, self._block_bytes)


_opened = OpenedArchives(_IndexedArchive, kept=4)


def read_compressed_tar_member(entry: ArchiveEntry) -> bytes:
    """One member: from the seek index's point before it, or without an index from the beginning."""
    offset, length = place(entry)
    if entry.lookup is not None:
        archive = _opened.get(entry.archive, entry.version, entry.lookup)
        try:
            return whole(entry, archive.read(offset, length))
        except gzip.BadGzipFile:
            pass  # near a damaged place another reader may still get what lies before it
    with open_file(entry.archive) as file, gzip.GzipFile(fileobj=file) as stream:
        stream.seek(offset)
        return whole(entry, stream.read(length))
