"""What a run makes of pictures that a store did not give: try again, or stop.

A unit with such pictures is held back at first: it is not committed, and comes again when all
others are done. What is refused then as well becomes an error row. What a store denies among
pictures of a unit that it still gives, though, is an error row at once: there may be one in almost
every unit, and the whole archive would be read twice. A store that gives nothing at
all ends the run instead, with nothing lost: better than a million error rows by morning. Whether it
is the store or the picture is told by asking for another one that could be read before; where there
is none, because the first pictures of an archive are those that it refuses, by asking for some from
all over the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from nfbmr.errors import StoreError
from nfbmr.store_faults import StoreFault

UNITS_BEFORE_STOP = 8
"""So many units in a row without one readable picture say that the store gives nothing."""


class Asked(Protocol):
    """A picture that was asked for.

    Attributes:
        content_hash: of its bytes, if they were read.
        error: why it has no score.
        error_kind: the same as one word.
        refused: why the store did not give it: ``denied``, ``busy``, or ``missing`` with all others
            of its unit.
    """

    content_hash: str | None
    error: str | None
    error_kind: str | None
    refused: str | None


def is_held(pictures: Sequence[Asked]) -> bool:
    """Whether a unit is not to be committed yet."""
    return any(picture.refused for picture in pictures)


def refusals(pictures: Sequence[Asked]) -> dict[str, Any]:
    """A unit's statistics for ``StoreWatch``."""
    refused = [picture for picture in pictures if picture.refused]
    return {
        "read": sum(picture.content_hash is not None for picture in pictures),
        "refused": len(refused),
        "busy": sum(picture.refused == StoreFault.BUSY for picture in refused),
        "reason": refused[0].error if refused else "",
    }


def hold_where_all_are_gone(pictures: Sequence[Asked]) -> None:
    """Hold a unit back of which every picture is gone, though it was there when it was listed.

    A share that is not mounted, on this node or any more, looks like that.
    """
    if pictures and all(picture.error_kind == StoreFault.MISSING for picture in pictures):
        for picture in pictures:
            picture.refused = StoreFault.MISSING


def settle_denied(pictures: Sequence[Asked], is_given: Callable[[int], bool]) -> None:
    """Let the pictures of a unit that were denied be errors where it is their own matter alone.

    Rights that were taken away while the unit was read look the same, but then what could be read
    is denied by now as well. Units that were denied as a whole, or of which a store was too busy to
    give some, are held back.

    Args:
        pictures: of a unit.
        is_given: looks whether the store still gives the picture at this place among them.
    """
    read = [place for place, picture in enumerate(pictures) if picture.content_hash is not None]
    refused = [picture for picture in pictures if picture.refused]
    if not read or any(picture.refused != StoreFault.DENIED for picture in refused):
        return
    if refused and is_given(read[0]):
        for picture in refused:
            picture.refused = None


def settle(pictures: Sequence[Asked], store_works: Callable[[], bool]) -> None:
    """After the last try: what was refused stays an error.

    Args:
        pictures: of a unit.
        store_works: looks whether the store gives other pictures; asked where it gave none.

    Raises:
        StoreError: the store gives no picture of the unit, and none of others that it gave before:
            they must not become errors.
    """
    found = refusals(pictures)
    if pictures and found["refused"] == len(pictures) and not store_works():
        raise StoreError(_sentence("A unit has", found["reason"]))
    for picture in pictures:
        picture.refused = None


class StoreWatch:
    """Looks at the units of a run as they come back.

    Args:
        any_read: whether pictures could be read in an earlier session of the run.
        categories: whose units come first, one of each: some of them may be denied.
        works: looks whether the store still gives the pictures of a unit that could be read, by
            the unit's name.
        witness: such a unit of an earlier session.
        find: looks for another one where none is known, among all that the run is to read; None if
            the store gives none.

    Attributes:
        held: names of the units that come once more.
        witness: the last unit of which a picture could be read, or what was found in its place.
    """

    def __init__(
        self,
        any_read: bool,
        categories: int = 1,
        works: Callable[[str], bool] = lambda _: False,
        witness: str | None = None,
        find: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._any_read = any_read
        self._refused_before_stop = max(UNITS_BEFORE_STOP, categories + 1)
        self._works = works
        self._find = find
        self._silent = self._refused = 0
        self._reason = ""
        self.held: set[str] = set()
        self.witness = witness

    def look(self, row: Mapping[str, Any]) -> None:
        """Take the statistics of a unit.

        Raises:
            StoreError: the store gives nothing at all.
        """
        if row["refused"]:
            self.held.add(row["unit"])
            self._reason = row["reason"]
        self._any_read |= row["read"] > 0
        if row["read"]:
            self.witness = row["unit"]
        wholly = row["refused"] == row["pictures"]
        if wholly:
            self._refused += 1
            self._silent += row["busy"] == row["refused"]
        elif row["read"] or row["refused"]:
            self._refused = self._silent = 0
        if self._silent >= UNITS_BEFORE_STOP or self._refused >= self._refused_before_stop:
            # One archive on a bad place of a disk must not keep all others waiting for ever.
            if not self._store_works():
                self._stop()
            self._refused = self._silent = 0

    def check_any_read(self) -> None:
        """Before the last try: somewhere something must be readable.

        Raises:
            StoreError: it is not.
        """
        if not self.held or self.witness is not None:
            return
        if not self._store_works() and not self._any_read:
            self._stop()

    def _store_works(self) -> bool:
        if self.witness is not None:
            return self._works(self.witness)
        # What comes first may be what the store does not give: that says nothing of the rest.
        self.witness = self._find()
        return self.witness is not None

    def _stop(self) -> None:
        raise StoreError(_sentence("The last units have", self._reason))


def _sentence(what: str, reason: str) -> str:
    return (
        f"{what} not one picture that could be read: {reason} Look at the store and at the rights "
        "of the credentials in the environment, then run the same command again. What was finished "
        "stays."
    )
