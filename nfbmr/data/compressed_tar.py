"""Compressed tar archives: listed by one reader, who leaves a seek index for all others.

Without an index, every member has to be unpacked from the archive's beginning: n members cost n
times half the archive. One streaming reader would be linear too, but a unit holds one category and
its pictures may lie anywhere in the archive, and then one process would unpack while all others
wait. With a point to start from every megabyte or so (the inflater's state, 32 KiB), any worker
begins near the member that it wants. The index is built while the archive is listed, which reads
all of it anyway, and lies in the plan; a worker fetches and unpacks only the blocks it needs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
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
from nfbmr.data.tar_archive import follow
from nfbmr.data.tar_headers import Read
from nfbmr.data.tar_joining import listing_of

_MIN_SPACING_BYTES = 2**20
_MAX_POINTS = 4096
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
        with _open(self.archive) as file:
            stream = _indexed(file, self._size)
            chain = follow(_mended(stream_reader(stream)), 0, None, None)
            index = self._save_index(stream) if self._keep is not None else None
        if chain.problem:
            # What is left of a damaged stream is given up in large pieces by the index's reader.
            with _open(self.archive) as file, gzip.GzipFile(fileobj=file) as plain:
                chain = follow(stream_reader(plain), 0, None, None)
        listing = listing_of(self.archive, [chain])
        listing.version = self.version
        listing.lookup = index
        return listing

    def _save_index(self, stream: IndexedGzipFile) -> str:
        """Save the index; that of a damaged archive ends where the archive can be unpacked no more.

        Raises:
            Exception: whatever the storage raised.
        """
        try:
            stream.build_full_index()
        except OSError as error:
            if error.__cause__ is not None:
                raise error.__cause__ from error
        name = hashlib.blake2b(f"{self.archive} {self.version}".encode(), digest_size=12)
        uri = storage.join(str(self._keep), f"{name.hexdigest()}.gzidx")
        with storage.open_atomically(uri) as file:
            stream.export_index(fileobj=file)
        return uri


def spacing_bytes(size: int) -> int:
    """Unpacked bytes between two points of the index of an archive of so many packed bytes."""
    return max(_MIN_SPACING_BYTES, size // _MAX_POINTS)


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


def _indexed(file: Any, size: int) -> IndexedGzipFile:
    return IndexedGzipFile(fileobj=file, spacing=spacing_bytes(size), buffer_size=2**16)


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
        self._block_bytes = spacing_bytes(size)
        self._stream = _indexed(self._file, size)
        data = storage.read(index)
        if data is None:
            raise FileNotFoundError(index)
        self._stream.import_index(fileobj=io.BytesIO(data))
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

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
