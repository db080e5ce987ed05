"""First stage of the scoring pipeline: a task that reads the encoded bytes of a unit's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from nfbmr.data.archive_entry import is_row
from nfbmr.data.content import content_hash
from nfbmr.data.manifest import ABSENT
from nfbmr.score.picture_reader import PictureReader, gives_any
from nfbmr.score.plan import PlannedPicture
from nfbmr.score.plan_files import unit_pictures
from nfbmr.score.planned_units import PlannedUnit
from nfbmr.score.schema import LISTING, NO_CATEGORY, NO_MODEL
from nfbmr.score.stage_clock import StageClock
from nfbmr.score.store_watch import hold_where_all_are_gone, settle, settle_denied
from nfbmr.score.unit_row import UNIT_ROW, UnitPicture, pictures_to_json
from nfbmr.store_faults import store_sentences

_FETCH_THREADS = 8
_MOST_BYTES = 2**32


def _has_known_length(planned: PlannedPicture) -> bool:
    return planned.length is not None and not is_row(planned.archive, planned.offset)


def _too_much(planned: PlannedPicture) -> UnitPicture:
    picture = UnitPicture(planned.image_uri, planned.archive, planned.member)
    picture.fail(
        f"the pictures of its unit have more than {_MOST_BYTES / 2**30:g} GiB together: score them "
        "in a run with a smaller run.unit_size",
        "too_large",
    )
    return picture


class Fetcher:
    """Reads the pictures of a unit, several at once; what cannot be read becomes its error.

    Args:
        model_errors: why some categories have no model: their pictures are not read.
        output: of the run, where the plan lies.
        run_id: of the scoring run.
        patience_s: how long what a store fails at is tried again.
        last_try: whether what a store refuses becomes an error now.
        witness: pictures of which some could be read before.
        holds_gone: whether a unit comes again of which every picture is gone.
    """

    def __init__(
        self,
        model_errors: Mapping[str, str],
        output: str,
        run_id: str,
        patience_s: float,
        last_try: bool,
        witness: Sequence[PlannedPicture] = (),
        holds_gone: bool = True,
    ) -> None:
        self.model_errors = dict(model_errors)
        self.output = output
        self.run_id = run_id
        self.patience_s = patience_s
        self.last_try = last_try
        self.witness = tuple(witness)
        self.holds_gone = holds_gone

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of ``PlannedUnit`` into rows of ``UNIT_ROW`` with encoded bytes."""
        rows = [self.fetch(PlannedUnit(**row)) for row in batch.to_pylist()]
        return pa.Table.from_pylist(rows, schema=UNIT_ROW)

    def fetch(self, unit: PlannedUnit) -> dict[str, Any]:
        """The row of one unit."""
        clock = StageClock()
        # A fetch task has its process to itself; the threads that talk to a store are fsspec's.
        with clock.whole_process("fetch"):
            with store_sentences(f"Reading the plan in {self.output}"):
                planned = unit_pictures(self.output, self.run_id, unit)
            fetched = self._fetch_all(planned)
            if self.holds_gone and all(picture.version != ABSENT for picture in planned):
                hold_where_all_are_gone([picture for picture, _ in fetched])
            if self.last_try:
                settle(
                    [picture for picture, _ in fetched],
                    lambda: gives_any(self.witness, self.patience_s),
                )
            else:
                settle_denied(
                    [picture for picture, _ in fetched],
                    lambda place: gives_any([planned[place]], self.patience_s),
                )
            encoded = b"".join(data for _, data in fetched)
        return {
            "unit": unit.name,
            "category": unit.category,
            "pictures": pictures_to_json([picture for picture, _ in fetched]),
            "encoded": encoded,
            **clock.seconds,
        }

    def _fetch_all(self, planned: Sequence[PlannedPicture]) -> list[tuple[UnitPicture, bytes]]:
        """All pictures of a unit.

        Units are cut by the lengths that are known. Where some are not, the pictures come in small
        groups, and those behind the group with which there are too many bytes are errors: the same
        ones in every run.
        """
        reader = PictureReader(self.patience_s)
        is_bounded = all(map(_has_known_length, planned))
        step = max(1, len(planned)) if is_bounded else _FETCH_THREADS
        fetched: list[tuple[UnitPicture, bytes]] = []
        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            for start in range(0, len(planned), step):
                group = planned[start : start + step]
                if not is_bounded and sum(len(data) for _, data in fetched) > _MOST_BYTES:
                    fetched += [(_too_much(picture), b"") for picture in group]
                else:
                    fetched += pool.map(lambda picture: self._fetch(picture, reader), group)
        return fetched

    def _fetch(self, planned: PlannedPicture, reader: PictureReader) -> tuple[UnitPicture, bytes]:
        """A picture and its bytes, none where it has an error."""
        picture = UnitPicture(planned.image_uri, planned.archive, planned.member)
        if planned.captured_at is not None:
            picture.captured_at = planned.captured_at.isoformat()
        if planned.problem is not None:
            picture.fail(planned.problem, NO_CATEGORY if planned.member else LISTING)
        elif planned.category in self.model_errors:
            picture.fail(self.model_errors[planned.category], NO_MODEL)
        if picture.error is not None:
            return picture, b""
        read = reader.read(planned)
        if read.error is not None:
            picture.fail(str(read.error), read.refused or read.error.kind)
            picture.refused = read.refused
        else:
            picture.encoded_bytes = len(read.data)
            picture.content_hash = content_hash(read.data)
        return picture, read.data
