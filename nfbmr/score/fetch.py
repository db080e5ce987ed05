"""First stage of the scoring pipeline: a task that reads the encoded bytes of a unit's pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import holder, read_entry
from nfbmr.data.content import content_hash
from nfbmr.errors import STORE_ERRORS, DataError
from nfbmr.score.plan import PlannedPicture, PlannedUnit
from nfbmr.score.plan_files import unit_pictures
from nfbmr.score.schema import LISTING, NO_CATEGORY, NO_MODEL
from nfbmr.score.stage_clock import StageClock
from nfbmr.score.unit_row import UNIT_ROW, UnitPicture, pictures_to_json

_FETCH_THREADS = 8


class _Versions:
    """The versions of archives as they are now, looked up once per unit."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def check(self, entry: ArchiveEntry, planned: str) -> None:
        """Refuse a picture whose file is not the one that was listed.

        Raises:
            DataError: the file changed, or is gone.
        """
        uri = holder(entry)
        try:
            if uri not in self._found:
                self._found[uri] = storage.file_version(uri)
        except FileNotFoundError as error:
            raise DataError(f"{uri} does not exist (any more).", "missing") from error
        except STORE_ERRORS as error:
            raise DataError(f"{uri} cannot be read: {error}.") from error
        if self._found[uri] != planned:
            raise DataError(
                f"{uri} changed since the run was planned: score it in a run of its own.",
                "changed",
            )


class Fetcher:
    """Reads the pictures of a unit, several at once; what cannot be read becomes its error.

    Args:
        model_errors: why some categories have no model: their pictures are not read.
        output: of the run, where the plan lies.
        run_id: of the scoring run.
    """

    def __init__(self, model_errors: Mapping[str, str], output: str, run_id: str) -> None:
        self.model_errors = dict(model_errors)
        self.output = output
        self.run_id = run_id

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of ``PlannedUnit`` into rows of ``UNIT_ROW`` with encoded bytes."""
        rows = [self.fetch(PlannedUnit(**row)) for row in batch.to_pylist()]
        return pa.Table.from_pylist(rows, schema=UNIT_ROW)

    def fetch(self, unit: PlannedUnit) -> dict[str, Any]:
        """The row of one unit."""
        clock = StageClock()
        with clock.stage("fetch"):
            planned = unit_pictures(self.output, self.run_id, unit)
            versions = _Versions()
            with ThreadPoolExecutor(_FETCH_THREADS) as pool:
                fetched = list(pool.map(lambda picture: self._fetch(picture, versions), planned))
            encoded = b"".join(data for _, data, _ in fetched)
        clock.add("fetch", 0.0, sum(cpu_s for _, _, cpu_s in fetched))
        return {
            "unit": unit.name,
            "category": unit.category,
            "pictures": pictures_to_json([picture for picture, _, _ in fetched]),
            "encoded": encoded,
            **clock.seconds,
        }

    def _fetch(
        self, planned: PlannedPicture, versions: _Versions
    ) -> tuple[UnitPicture, bytes, float]:
        """A picture, its bytes (none where it has an error), and the CPU seconds it took."""
        started = time.thread_time()
        picture = UnitPicture(planned.image_uri, planned.archive, planned.member)
        if planned.problem is not None:
            picture.fail(planned.problem, LISTING if planned.category else NO_CATEGORY)
        elif planned.category in self.model_errors:
            picture.fail(self.model_errors[planned.category], NO_MODEL)
        data = b""
        if picture.error is None:
            try:
                data = _read(planned, versions)
                picture.encoded_bytes = len(data)
                picture.content_hash = content_hash(data)
            except DataError as error:
                picture.fail(str(error), error.kind)
        return picture, data, time.thread_time() - started


def _read(planned: PlannedPicture, versions: _Versions) -> bytes:
    entry = ArchiveEntry(planned.archive, planned.member, planned.offset, planned.length)
    if planned.version is not None:
        versions.check(entry, planned.version)
    return read_entry(entry)
