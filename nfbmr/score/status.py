"""How far a scoring run is, told from its files alone: no Ray, no registry."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.score.dataset import read_marker
from nfbmr.score.plan_files import load_plan
from nfbmr.score.units import finished_units, read_failed, units_uri

_READERS = 16
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        output: of the run.
        finished: whether the data set is whole.
        pictures: of the plan.
        done: that have a row, with or without an error.
        failed: that have a row with an error.
        left: that have none yet.
        seconds_left: at the pace between the first and the last committed unit; None where it
            cannot be told.
    """

    output: str
    finished: bool
    pictures: int
    done: int
    failed: int
    left: int
    seconds_left: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run_status(output: str) -> RunStatus:
    """Look at a run's files.

    Raises:
        OutputError: there is no run under this output, or its plan is damaged.
    """
    output = storage.absolute_uri(output)
    plan = load_plan(output)
    if plan is None:
        raise OutputError(
            f"There is no scoring run at {output}: start it with jobs/score.py and this --output."
        )
    marker = read_marker(output)
    if marker is not None:
        total = plan.pictures
        return RunStatus(output, True, total, total, marker["failed"], 0, 0.0)
    finished = finished_units(output)
    counts = {unit.name: unit.count for unit in plan.units if unit.name in finished}
    with ThreadPoolExecutor(_READERS) as pool:
        failed = sum(pool.map(lambda name: read_failed(output, name), counts))
    done = sum(counts.values())
    left = plan.pictures - done
    return RunStatus(output, False, plan.pictures, done, failed, left, _seconds(output, done, left))


def _seconds(output: str, done: int, left: int) -> float | None:
    """Time left, from when the first and the last unit were written."""
    stamps = sorted(_written_at(output))
    if len(stamps) < 2 or stamps[-1] <= stamps[0]:
        return None
    # The first unit took its time before its stamp: one unit of n is not in the span.
    pace = (stamps[-1] - stamps[0]) / (done * (len(stamps) - 1) / len(stamps))
    return float(left * pace)


def _written_at(output: str) -> Iterable[float]:
    fs, path = storage.file_system(units_uri(output))
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return
    for info in entries:
        changed = info.get("mtime") or info.get("LastModified") or info.get("created")
        if changed is not None and info["name"].endswith(_SUFFIX):
            yield changed if isinstance(changed, (int, float)) else changed.timestamp()
