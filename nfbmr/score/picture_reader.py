"""The bytes of planned pictures: what fails is told apart as the picture's fault or the store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import read_entry
from nfbmr.errors import DataError, StoreError
from nfbmr.score.plan import PlannedPicture
from nfbmr.score.shared_patience import SharedPatience
from nfbmr.store_faults import StoreFault, fault_of, patience, retried

_SECOND_LOOKS = 3
"""Bytes that were cut short or garbled on their way are whole when they are read again."""

_SURE = ("changed", "too_large")
"""Kinds of errors that no second look makes another."""

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
    """Reads the pictures of a unit; each is refused where its file is not the one that was listed.

    Args:
        patience_s: how long a store that throttles, resets or does not answer is tried again: for
            a picture, but not for every one of many, see ``SharedPatience``.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience = SharedPatience(patience_s)

    def read(self, planned: PlannedPicture) -> ReadPicture:
        """Read one picture, as often as that may help; safe to call from many threads.

        Raises:
            StoreError: the store refuses everything, whatever picture is asked for.
        """
        entry = ArchiveEntry(
            planned.archive,
            planned.member,
            planned.offset,
            planned.length,
            planned.version,
            planned.lookup,
        )
        patience_s = self._patience.left_s(planned.archive)
        try:
            # Opening an archive tries again by itself: then its patience is this one.
            with patience(patience_s):
                data = retried(lambda: _read(entry), patience_s)
        except DataError as error:
            fault = fault_of(error)
            self._patience.note(planned.archive, is_silent=fault is StoreFault.BUSY)
            if fault is StoreFault.REFUSES_ALL:
                raise StoreError(
                    f"{error} The store refuses everything: renew the credentials in the "
                    "environment, then run the same command again. What was finished stays."
                ) from error
            return ReadPicture(b"", error, fault if fault in _STORES_FAULTS else None)
        self._patience.note(planned.archive, is_silent=False)
        return ReadPicture(data)


def _read(entry: ArchiveEntry) -> bytes:
    for _ in range(_SECOND_LOOKS):
        try:
            return read_entry(entry)
        except DataError as error:
            if fault_of(error) is not StoreFault.OTHER or error.kind in _SURE:
                raise
    return read_entry(entry)


_WITNESSES = 4


def gives_any(pictures: Sequence[PlannedPicture], patience_s: float = 0.0) -> bool:
    """Whether a store gives one of some pictures: a few are asked for, from first to last.

    That a picture is another one by now is an answer, too; that it is gone is none: so it is with
    all of them where a share is not mounted any more.

    Args:
        pictures: some of which could be read before.
        patience_s: how long a store that does not answer is tried again.
    """
    reader = PictureReader(patience_s)
    # The first ones may be those that are refused: a unit may begin where these end.
    asked = pictures[:: max(1, -(-len(pictures) // _WITNESSES))]
    try:
        return any(_is_answer(reader.read(picture)) for picture in asked)
    except StoreError:
        return False


def _is_answer(read: ReadPicture) -> bool:
    return read.error is None or read.error.kind == "changed"
