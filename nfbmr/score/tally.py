"""What the rows of a data set add up to, counted in one pass over some of its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from nfbmr.errors import OutputError
from nfbmr.score.dataset import files_dataset
from nfbmr.score.parts import CATEGORY
from nfbmr.score.schema import ERROR, LISTING, OK
from nfbmr.store_faults import retried

_COLUMNS = [CATEGORY, "archive", "status", "error_kind", "p_value", "calibration_size"]


@dataclass
class Tally:
    """Sums over rows.

    Attributes:
        rows: all of them.
        failed: with an error.
        failed_by_kind: the same by ``error_kind``.
        damaged_sources: sources of which something could not be listed, and their rows that say so.
        p_values: per category (n + 1,), how many p-values are ``(k + 1) / (n + 1)``.
    """

    rows: int = 0
    failed: int = 0
    failed_by_kind: Counter[str] = field(default_factory=Counter)
    damaged_sources: Counter[str] = field(default_factory=Counter)
    p_values: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch.

        Raises:
            OutputError: a category's p-values have calibrations of different sizes.
        """
        self.rows += len(batch)
        errors = batch.filter(pc.equal(batch.column("status"), ERROR))
        self.failed += len(errors)
        self.failed_by_kind.update(errors.column("error_kind").to_pylist())
        damaged = errors.filter(pc.equal(errors.column("error_kind"), LISTING))
        self.damaged_sources.update(damaged.column("archive").to_pylist())
        scored = batch.filter(pc.equal(batch.column("status"), OK))
        categories = pc.fill_null(scored.column(CATEGORY), "")
        for category in categories.unique().to_pylist():
            self._add_p_values(category, scored.filter(pc.equal(categories, category)))

    def _add_p_values(self, category: str, rows: pa.RecordBatch) -> None:
        n = rows.column("calibration_size")[0].as_py()
        counts = self.p_values.setdefault(category, np.zeros(n + 1, dtype=np.int64))
        if not pc.all(pc.equal(rows.column("calibration_size"), len(counts) - 1)).as_py():
            raise OutputError(
                f"The scores of category {category!r} were calibrated on different numbers of "
                f"pictures, {n} and {len(counts) - 1} among them: they are not of one run."
            )
        ranks = np.rint(rows.column("p_value").to_numpy(zero_copy_only=False) * (n + 1))
        counts += np.bincount(ranks.astype(np.int64) - 1, minlength=n + 1)


def tally_scores(output: str, names: Sequence[str]) -> Tally:
    """Count the rows of a data set, a batch at a time.

    Args:
        output: of the run.
        names: of the files below the data folder.
    """
    return retried(lambda: _tally(output, names))


def count_failed(output: str, names: Sequence[str]) -> int:
    """How many rows of a data set are errors, by that column alone.

    Args:
        output: of the run.
        names: of the files below the data folder.
    """
    failed = ds.field("status") == ERROR
    return retried(lambda: int(files_dataset(output, names).count_rows(filter=failed)))


def _tally(output: str, names: Sequence[str]) -> Tally:
    tally = Tally()
    for batch in files_dataset(output, names).to_batches(
        columns=_COLUMNS, batch_readahead=4, fragment_readahead=1
    ):
        tally.add(batch)
    return tally
