"""The bytes of planned pictures: what fails is told apart as the picture's fault or the store's."""

from __future__ import annotations

from dataclasses import dataclass

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import holder, read_entry
from nfbmr.errors import STORE_ERRORS, DataError, StoreError
from nfbmr.score.plan import PlannedPicture
from nfbmr.store_faults import StoreFault, fault_of, retried

_STORES_FAULTS = (StoreFault.DENIED, StoreFault.BUSY)


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """What became of reading a picture.

    Attributes:
        data: its encoded bytes; none if they could not be read.
        error: why not.
        refused: the store did not give it, but may still do: ``denied`` or ``busy``.
    """

    data: bytes
    error: DataError | None = None
    refused: str | None = None


class PictureReader:
    """Reads pictures of one unit; the versions of their files are looked up once.

    Args:
        patience_s: how long a store that throttles, resets or does not answer is tried again.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._versions: dict[str, str] = {}

    def read(self, planned: PlannedPicture) -> ReadPicture:
        """Read one picture, as often as that may help.

        Raises:
            StoreError: the store refuses everything, whatever picture is asked for.
        """
        entry = ArchiveEntry(planned.archive, planned.member, planned.offset, planned.length)
        try:
            data = retried(lambda: self._read(entry, planned.version), self._patience_s)
        except DataError as error:
            fault = fault_of(error)
            if fault is StoreFault.REFUSES_ALL:
                raise StoreError(
                    f"{error} The store refuses everything: renew the credentials in the "
                    "environment, then run the same command again. What was finished stays."
                ) from error
            return ReadPicture(b"", error, fault if fault in _STORES_FAULTS else None)
        return ReadPicture(data)

    def _read(self, entry: ArchiveEntry, version: str | None) -> bytes:
        try:
            if version is not None:
                self._check_version(entry, version)
        except DataError as error:
            if fault_of(error) is StoreFault.DENIED:
                read_entry(entry)  # a refused look has no reason with it, a refused read has
            raise
        try:
            return read_entry(entry)
        except DataError as error:
            if fault_of(error) is not StoreFault.OTHER:
                raise
            # Bytes that were cut short or garbled on their way come whole the second time.
            return read_entry(entry)

    def _check_version(self, entry: ArchiveEntry, planned: str) -> None:
        """Refuse a picture whose file is not the one that was listed.

        Raises:
            DataError: the file changed, is gone or cannot be looked at.
        """
        uri = holder(entry)
        try:
            if uri not in self._versions:
                self._versions[uri] = storage.file_version(uri, patience_s=0.0)
        except FileNotFoundError as error:
            raise DataError(f"{uri} does not exist (any more).", "missing") from error
        except STORE_ERRORS as error:
            raise DataError(f"{uri} cannot be read: {error}.") from error
        if self._versions[uri] != planned:
            raise DataError(
                f"{uri} changed since the run was planned: score it in a run of its own.",
                "changed",
            )
