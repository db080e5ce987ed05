"""How long planning takes and how much memory, apart from listing and from looking models up."""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from nfbmr.data.archive_entry import ENTRIES, ArchiveListing
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.listing_stream import CHUNK_PICTURES
from nfbmr.score.plan import Plan
from nfbmr.score.plan_files import PlanWriter, load_plan, unit_pictures
from nfbmr.score.sources import pictures_of

_CATEGORIES = 40
_LINES = 12
_PICTURE_BYTES = 180_000


@dataclass
class PlanMeasurement:
    """What was measured.

    Attributes:
        pictures: planned.
        units: they were cut into.
        seconds: by step.
        resident_before_mib: of the process, before.
        resident_peak_mib: of the process, at most.
    """

    pictures: int
    units: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    resident_before_mib: float = 0.0
    resident_peak_mib: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "seconds_in_all": sum(self.seconds.values())}


def measure_planning(pictures: int, unit_size: int) -> PlanMeasurement:
    """Plan pictures of a made-up year: half in prefixes with an ETag each, half in tars.

    They come in chunks, as they do in a run; making them up is not counted.

    Args:
        pictures: how many.
        unit_size: pictures per unit.
    """
    result = PlanMeasurement(pictures)
    chunks = math.ceil(pictures / CHUNK_PICTURES)
    result.resident_before_mib = _peak_mib()
    rule = CategoryRule("{category}/")
    with tempfile.TemporaryDirectory(prefix="nfbmr-plan-") as output:
        writer = PlanWriter(output, "benchmark")
        for number in range(chunks):
            start, stop = (pictures * n // chunks for n in (number, number + 1))
            listings = _chunk(number, stop - start)
            with _timed(result, "categories, names, each once"):
                table = pictures_of(listings, rule)
            del listings
            with _timed(result, "order, units, files"):
                writer.add(table, unit_size)
            del table
        with _timed(result, "save"):
            units = writer.units()
            writer.finish(Plan("benchmark", {}, {}, {}, units))
        with _timed(result, "load"):
            plan = load_plan(output)
        if plan is None:
            raise AssertionError("the plan that was saved is not there")
        with _timed(result, "look at every unit"):
            counted = sum(unit.count for unit in plan.units)
        with _timed(result, "read one unit's pictures"):
            read = unit_pictures(output, plan.run_id, plan.units[len(plan.units) // 2])
        if counted != pictures or not read:
            raise AssertionError(f"{counted} pictures in the plan, expected {pictures}")
    result.units = len(units)
    result.resident_peak_mib = _peak_mib()
    return result


def _chunk(number: int, count: int) -> list[ArchiveListing]:
    """What is listed at once: half of it in a prefix, half in two tars."""
    tar = count // 4
    rest = count - 2 * tar
    return [_prefix(number, rest), _tar(2 * number, tar), _tar(2 * number + 1, tar)]


def _prefix(number: int, count: int) -> ArchiveListing:
    rng = np.random.default_rng(number)
    tags = rng.bytes(16 * count).hex()
    versions = [tags[32 * n : 32 * (n + 1)] for n in range(count)]
    lengths = rng.integers(_PICTURE_BYTES // 2, 2 * _PICTURE_BYTES, count)
    uri = f"s3://factory-archive-eu-central-1/plant-{number:04d}/images"
    columns = {"member": _members(count), "length": pa.array(lengths), "version": versions}
    return ArchiveListing(uri, _entries(count, columns))


def _tar(number: int, count: int) -> ArchiveListing:
    offsets = 512 + np.arange(count) * (_PICTURE_BYTES + 512)
    lengths = np.full(count, _PICTURE_BYTES)
    uri = f"s3://factory-archive-eu-central-1/plant-03/tars/2026-{number:04d}.tar"
    columns = {
        "member": _members(count),
        "offset": pa.array(offsets),
        "length": pa.array(lengths),
    }
    return ArchiveListing(uri, _entries(count, columns), version="9b2cf535f27731c974343645a3985328")


def _entries(count: int, columns: dict[str, Any]) -> pa.Table:
    unknown = {f.name: pa.nulls(count, f.type) for f in ENTRIES}
    return pa.table(unknown | columns).cast(ENTRIES)


def _members(count: int) -> list[str]:
    """Names as cameras give them, about 80 characters with the category first."""
    return [
        f"product-{n % _CATEGORIES:03d}/line-{n % _LINES:02d}/2026/11/{n % 28 + 1:02d}/"
        f"cam2-20261124T{n % 86_400:06d}-{n:09d}.jpg"
        for n in range(count)
    ]


@contextmanager
def _timed(result: PlanMeasurement, step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    before_s = result.seconds.get(step, 0.0)
    result.seconds[step] = before_s + time.perf_counter() - started


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
