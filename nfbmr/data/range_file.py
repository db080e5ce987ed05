"""A file of an archive as a Python file: every read is one range request of exactly its bytes."""

from __future__ import annotations

import io

from nfbmr.data.ranges import fetch_patiently


class RangeFile(io.RawIOBase):
    """Reads a file without reading ahead, for readers that know what they want.

    Args:
        uri: of the file.
        size: in bytes.
        version: that the file must have.
    """

    def __init__(self, uri: str, size: int, version: str | None) -> None:
        super().__init__()
        self._uri = uri
        self._size = size
        self._version = version
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes; fewer at the end of the file."""
        end = self._size if size is None or size < 0 else min(self._size, self._place + size)
        data = fetch_patiently(self._uri, self._place, end, self._version)
        self._place += len(data)
        return data
