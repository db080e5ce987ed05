"""How far a scoring run is, told from its files alone: no Ray, no registry."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from nfbmr import storage, store_folders
from nfbmr.errors import OutputError
from nfbmr.output_place import check_place
from nfbmr.score.dataset import finished_marker, is_being_retried, read_marker
from nfbmr.score.plan import Plan
from nfbmr.score.plan_files import PLAN_FOLDER, load_plan
from nfbmr.score.planned_units import Units
from nfbmr.score.tally import count_failed
from nfbmr.score.units import finished_units, read_failed, units_uri
from nfbmr.store_faults import store_sentences

UNITS_ASKED = 20_000
"""Half a minute in an object store."""

_READERS = 16
_SHORTEST_PAUSE_S = 60.0
_PAUSE_GAPS = 20
"""A gap between two units that is so many times the usual one is a pause, not work."""
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        output: of the run.
        finished: whether the data set is whole.
        pictures: of the plan.
        done: that have a row, with or without an error.
        failed: that have a row with an error; of a run of very many units reckoned from a sample.
        failed_is_exact: whether every unit was asked.
        left: that have none yet.
        seconds_left: at the pace of the units that were committed since the run was last started;
            None where it cannot be told.
        retry_begun: scoring the error rows of the finished run again was begun and is not finished.
    """

    output: str
    finished: bool
    pictures: int
    done: int
    failed: int
    failed_is_exact: bool
    left: int
    seconds_left: float | None
    retry_begun: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@store_sentences("Looking at the run")
def run_status(output: str) -> RunStatus:
    """Look at a run's files.

    Raises:
        OutputError: there is no run under this output, or its plan is damaged.
    """
    check_place(output)
    output = storage.absolute_uri(output)
    plan = load_plan(output)
    if plan is None and PLAN_FOLDER in store_folders.list_folders(output):
        raise OutputError(
            f"The run at {output} is not planned yet: its sources are being listed, or the command "
            "was cut off while it listed them. The same command goes on with that."
        )
    if plan is None:
        raise OutputError(
            f"There is no scoring run at {output}: start it with jobs/score.py and this --output."
        )
    try:
        return _finished(output, plan) or _unfinished(output, plan)
    except (OutputError, OSError):
        # A run that ends at this moment drops the units that are being looked at.
        ended = _finished(output, plan)
        if ended is None:
            raise
        return ended


def _finished(output: str, plan: Plan) -> RunStatus | None:
    marker = read_marker(output)
    if marker is None:
        return None
    total, failed = plan.pictures, marker["failed"]
    retry_begun = is_being_retried(output)
    if retry_begun:
        failed = count_failed(output, finished_marker(output)["files"])
    return RunStatus(output, True, total, total, failed, True, 0, 0.0, retry_begun)


def _unfinished(output: str, plan: Plan) -> RunStatus:
    finished = finished_units(output)
    if not finished and (ended := _finished(output, plan)) is not None:
        return ended
    units = plan.units.named(finished)
    failed, is_exact = _failed(output, units)
    done = units.pictures
    left = plan.pictures - done
    stamps, began = list(_written_at(output)), session_began(output)
    seconds = seconds_left(stamps, len(plan.units) - len(units), began)
    return RunStatus(output, False, plan.pictures, done, failed, is_exact, left, seconds)


def _failed(output: str, units: Units) -> tuple[int, bool]:
    """Rows with an error, and whether that is exact: a footer of each unit has to be read."""
    is_exact = len(units) <= UNITS_ASKED
    names = [unit.name for unit in units]
    asked = names if is_exact else random.Random(0).sample(names, UNITS_ASKED)
    with ThreadPoolExecutor(_READERS) as pool:
        failed = sum(pool.map(lambda name: read_failed(output, name), asked))
    return (failed if is_exact else round(failed * len(names) / len(asked))), is_exact


def seconds_left(stamps: Sequence[float], left: int, began: float | None = None) -> float | None:
    """Time that units will take, from when others were written.

    Args:
        stamps: of the committed units, seconds since any moment.
        left: how many units there are still.
        began: when the run was last started. Where that is not known, or has brought forth too
            little to go by, a gap that is much longer than the others is taken for a pause.

    Returns:
        Seconds; None where fewer than two units tell nothing.
    """
    ordered = sorted(stamps)
    own = [stamp for stamp in ordered if began is not None and stamp >= began]
    if len(own) > 1 and own[-1] > own[0]:
        return left * (own[-1] - own[0]) / (len(own) - 1)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    if not gaps:
        return None
    pause_s = max(_SHORTEST_PAUSE_S, _PAUSE_GAPS * statistics.median(gaps))
    last = next((i for i in reversed(range(len(gaps))) if gaps[i] > pause_s), -1) + 1
    session = gaps[last:]
    if not session or sum(session) <= 0:
        return None
    return left * sum(session) / len(session)


def begin_session(output: str, forward: str) -> str | None:
    """Leave a mark that tells when a run was last started, by its store's own clock.

    Args:
        output: of the run.
        forward: how this session computes, ``run.forward``.

    Returns:
        How the session before computed; None where there was none, or it did not say.
    """
    uri = _session_uri(output)
    before = forward_of(storage.read(uri))
    storage.write_atomically(uri, json.dumps({"forward": forward}).encode())
    return before


def forward_of(session: bytes | None) -> str | None:
    """What a session's mark says of how it computes; None for one that says nothing."""
    try:
        values = json.loads(session or b"{}")
    except ValueError:
        return None
    forward = values.get("forward") if isinstance(values, dict) else None
    return forward if isinstance(forward, str) else None


def session_began(output: str) -> float | None:
    """When the run was last started, in seconds since 1970; None where there is no mark."""
    fs, path = storage.file_system(_session_uri(output))
    try:
        fs.invalidate_cache(path.rpartition("/")[0])
        return _changed_at(fs.info(path))
    except FileNotFoundError:
        return None


def _session_uri(output: str) -> str:
    return storage.join(output, PLAN_FOLDER, "session.json")


def _written_at(output: str) -> Iterable[float]:
    fs, path = storage.file_system(units_uri(output))
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return
    for info in entries:
        changed = _changed_at(info)
        if changed is not None and info["name"].endswith(_SUFFIX):
            yield changed


def _changed_at(info: Mapping[str, Any]) -> float | None:
    changed = info.get("mtime") or info.get("LastModified") or info.get("created")
    if changed is None or isinstance(changed, (int, float)):
        return changed
    return float(changed.timestamp())
