"""How long, how much and what breaks: a scoring run on many GPUs, reckoned from measured costs.

A run is three phases, one after the other: the driver lists and plans; the cluster fetches,
decodes, scores and commits; tasks merge, a file each. The middle phase is a line of stations that
work at the same time, so that the slowest of them sets its pace; what the driver does per unit and
what the store answers per second are stations as well. Every wave of units begins with starting
its actors, in which nothing else is done.

Quantities are per picture where nothing else is said. Everything comes in by ``Costs``; what has
not been measured is named in ``Costs.assumed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nfbmr.score.listing_stream import CHUNK_PICTURES
from nfbmr.score.planned_units import UNITS_PER_WAVE

LIST_PAGE = 1000
LISTED_UNIT_BYTES = 626
"""Of the driver, for each unit's file in an object store when they are listed: on going on with a
run, and when they are removed at its end (s3fs keeps a dictionary for each)."""

NAME_BYTES = 16
"""Of the driver, for each picture that the sources may name twice, while the plan is made."""


@dataclass(frozen=True)
class Costs:
    """What one picture, unit or wave costs.

    Attributes:
        gpu_per_s: pictures that one GPU scores per second, backbone and heads.
        decode_cpu_s: CPU seconds to decode and resize.
        fetch_s: seconds of a fetch task for a picture, waiting included (a task reads several at
            the same time).
        commit_s: seconds of an actor to write its rows.
        list_s: seconds until a picture is listed: a page's share, of pages asked for in parallel.
        plan_s: the driver's seconds to plan what is listed.
        plan_bytes: the driver's memory while it plans, per picture of the chunk that it plans.
        unit_bytes: the driver's memory of one planned unit, for the whole run.
        unit_driver_s: the driver's seconds to send one unit through Ray Data.
        wave_s: seconds before a wave of units has its actors up.
        merge_s: a task's seconds to merge a row.
        row_bytes: of a finished row on disk, its map included.
        encoded_bytes: of the encoded picture.
        gets: requests to read a picture (a version look-up of an archive counts per unit).
        name_bytes: the driver's memory of a picture's name while the plan is made: ``NAME_BYTES``
            where sources may repeat (manifests, a prefix within another), else 0.
        assumed: names of those that were not measured.
    """

    gpu_per_s: float
    decode_cpu_s: float
    fetch_s: float
    commit_s: float
    list_s: float
    plan_s: float
    plan_bytes: float
    unit_bytes: float
    unit_driver_s: float
    wave_s: float
    merge_s: float
    row_bytes: float
    encoded_bytes: float
    gets: float = 1.0
    name_bytes: float = 0.0
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What a run has.

    Attributes:
        gpus: one backbone actor each.
        cores_per_gpu: that decode, wherever they are.
        fetch_tasks_per_gpu: that run at the same time for one GPU: of a node with eight cores, two
            are left to tasks of a quarter.
        network_bytes_per_s: of a GPU's node.
        store_gets_per_s: that the bucket answers.
        store_puts_per_s: likewise.
        driver_bytes: memory that the driver may use: half of the head that the manifests describe,
            since Ray's own processes and a night with its controllers are there too.
        unit_size: pictures per unit.
        rows_per_file: of the finished data set.
        bytes_per_file: likewise; whichever is reached first.
    """

    gpus: int
    cores_per_gpu: float = 8.0
    fetch_tasks_per_gpu: float = 8.0
    network_bytes_per_s: float = 1.25e9
    store_gets_per_s: float = 5500.0
    store_puts_per_s: float = 3500.0
    driver_bytes: float = 16 * 2**30
    unit_size: int = 64
    rows_per_file: int = 1_000_000
    bytes_per_file: float = 512 * 2**20


@dataclass(frozen=True)
class Prices:
    """In one currency; examples, not offers."""

    gpu_hour: float = 2.0
    core_hour: float = 0.04
    thousand_gets: float = 0.0004
    thousand_puts: float = 0.005


@dataclass(frozen=True)
class Forecast:
    """A run as it is expected.

    Attributes:
        pictures: of the run.
        gpus: of the cluster.
        plan_s: first phase.
        score_s: second phase.
        merge_s: third phase.
        slowest: the station that sets the pace of the second phase, or ``waves`` where starting
            actors takes longer than all that they do.
        per_s_by_station: pictures per second that each station could do.
        driver_bytes: peak memory of the driver.
        driver_fits: whether it has that.
        files: objects that exist at most during the run, and those that stay.
        requests: to the store, by kind.
        requests_cost: of those alone.
        cost: of cluster and requests.
    """

    pictures: int
    gpus: int
    plan_s: float
    score_s: float
    merge_s: float
    slowest: str
    per_s_by_station: dict[str, float]
    driver_bytes: float
    driver_fits: bool
    files: dict[str, int]
    requests: dict[str, int]
    requests_cost: float
    cost: float

    @property
    def total_s(self) -> float:
        """All three phases."""
        return self.plan_s + self.score_s + self.merge_s

    @property
    def per_s(self) -> float:
        """Pictures per second over all of it."""
        return self.pictures / self.total_s

    @property
    def gpu_use(self) -> float:
        """Share of the whole run in which the GPUs work."""
        return self.pictures / (self.per_s_by_station["gpu"] * self.total_s)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "total_s": self.total_s,
            "per_s": self.per_s,
            "gpu_use": self.gpu_use,
        }


def forecast(pictures: int, costs: Costs, cluster: Cluster, prices: Prices) -> Forecast:
    """Reckon a run."""
    stations = station_rates(costs, cluster)
    pace_per_s = min(stations.values())
    starting_s = waves(pictures, cluster) * costs.wave_s
    if starting_s > 0:
        stations["waves"] = pictures / starting_s
    slowest = min(stations, key=lambda name: stations[name])
    # The next chunk is listed while one is planned.
    plan_s = pictures * max(costs.list_s, costs.plan_s)
    merge_s = merging_s(pictures, costs, cluster)
    score_s = starting_s + pictures / pace_per_s
    driver_bytes = driver_memory(pictures, costs, cluster)
    requests = store_requests(pictures, costs, cluster)
    hours = (plan_s + score_s + merge_s) / 3600
    per_hour = cluster.gpus * (prices.gpu_hour + cluster.cores_per_gpu * prices.core_hour)
    bill = requests_bill(requests, prices)
    return Forecast(
        pictures=pictures,
        gpus=cluster.gpus,
        plan_s=plan_s,
        score_s=score_s,
        merge_s=merge_s,
        slowest=slowest,
        per_s_by_station=stations,
        driver_bytes=driver_bytes,
        driver_fits=driver_bytes <= cluster.driver_bytes,
        files={
            "units": math.ceil(pictures / cluster.unit_size),
            "finished": math.ceil(pictures / rows_in_file(costs, cluster)),
        },
        requests=requests,
        requests_cost=bill,
        cost=hours * per_hour + bill,
    )


def waves(pictures: int, cluster: Cluster) -> int:
    """How often actors are started."""
    return math.ceil(pictures / (UNITS_PER_WAVE * cluster.unit_size))


def rows_in_file(costs: Costs, cluster: Cluster) -> int:
    """Of a file of the finished data set, at most."""
    return max(1, min(cluster.rows_per_file, int(cluster.bytes_per_file / costs.row_bytes)))


def merging_s(pictures: int, costs: Costs, cluster: Cluster) -> float:
    """Seconds of the third phase: every file is a task on a core; the last round ends it."""
    rows = rows_in_file(costs, cluster)
    files = math.ceil(pictures / rows)
    cores = max(1, int(cluster.gpus * cluster.cores_per_gpu))
    return math.ceil(files / cores) * min(pictures, rows) * costs.merge_s


def station_rates(costs: Costs, cluster: Cluster) -> dict[str, float]:
    """Pictures per second that each station of the second phase could do alone."""
    return {
        "gpu": cluster.gpus * costs.gpu_per_s,
        "decode": cluster.gpus * cluster.cores_per_gpu / costs.decode_cpu_s,
        "fetch": cluster.gpus * cluster.fetch_tasks_per_gpu / costs.fetch_s,
        # An actor writes its units one after the other.
        "commit": cluster.gpus / costs.commit_s,
        "network": cluster.gpus * cluster.network_bytes_per_s / costs.encoded_bytes,
        "store gets": cluster.store_gets_per_s / costs.gets,
        "store puts": cluster.store_puts_per_s * cluster.unit_size,
        "driver, per unit": cluster.unit_size / costs.unit_driver_s,
    }


def driver_memory(pictures: int, costs: Costs, cluster: Cluster) -> float:
    """Peak memory of the driver, bytes: all units, and the plan's making, or units listed."""
    units = pictures / cluster.unit_size
    planning = min(pictures, CHUNK_PICTURES) * costs.plan_bytes + pictures * costs.name_bytes
    return units * costs.unit_bytes + max(planning, units * LISTED_UNIT_BYTES)


def store_requests(pictures: int, costs: Costs, cluster: Cluster) -> dict[str, int]:
    """Requests of a run that reads pictures of their own from a bucket and writes to one."""
    units = math.ceil(pictures / cluster.unit_size)
    return {
        "list": 2 * math.ceil(pictures / LIST_PAGE) + math.ceil(units / LIST_PAGE),
        # Pictures; each unit once by the merge, and its row group of the plan, by footer and rows,
        # at most: a process that gets several units of a row group reads it once.
        "get": math.ceil(pictures * costs.gets) + 3 * units,
        "head": units,
        "put": units + math.ceil(pictures / rows_in_file(costs, cluster)),
    }


def requests_bill(requests: Mapping[str, int], prices: Prices) -> float:
    """What a run's requests to the store cost."""
    gets = requests["get"] + requests["head"]
    puts = requests["list"] + requests["put"]
    return (gets * prices.thousand_gets + puts * prices.thousand_puts) / 1000
