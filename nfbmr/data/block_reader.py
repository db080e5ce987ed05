"""Small reads along a large file, with few requests."""

from __future__ import annotations

from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.ranges import fetch_patiently

_SMALL_BYTES = 64 * 2**10
_LARGE_BYTES = 4 * 2**20
_HOP_BYTES = 2**20


class BlockReader:
    """Reads pieces of a file in rising order, through a window.

    Far from the data a request costs as much time as some megabytes: what is read in hops shorter
    than that is fetched as one piece, and longer hops skip what lies between. On a local disk
    every hop skips.

    Args:
        uri: of the file.
        size: in bytes.
        version: that the file must have.

    Attributes:
        requests: how many were made.
    """

    def __init__(self, uri: str, size: int, version: str | None) -> None:
        self.uri = uri
        self.size = size
        self.version = version
        self.requests = 0
        self._is_local = isinstance(storage.file_system(uri)[0], LocalFileSystem)
        self._start = 0
        self._window = b""
        self._last_miss: int | None = None

    def __call__(self, start: int, count: int) -> bytes:
        """Some bytes; fewer at the end of the file."""
        end = min(start + count, self.size)
        if start >= end:
            return b""
        if not (self._start <= start and end <= self._start + len(self._window)):
            self._fetch(start, max(count, self._window_bytes(start)))
        return self._window[start - self._start : end - self._start]

    def _window_bytes(self, start: int) -> int:
        hop = None if self._last_miss is None else start - self._last_miss - len(self._window)
        self._last_miss = start
        is_short = hop is None or 0 <= hop < _HOP_BYTES
        return _LARGE_BYTES if is_short and not self._is_local else _SMALL_BYTES

    def _fetch(self, start: int, count: int) -> None:
        self.requests += 1
        self._start = start
        end = min(start + count, self.size)
        self._window = fetch_patiently(self.uri, start, end, self.version)
