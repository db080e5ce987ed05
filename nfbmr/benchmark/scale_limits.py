"""What breaks when a scoring run grows, and what moves the limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nfbmr.benchmark.scale import LISTED_UNIT_BYTES, Cluster, Costs, station_rates
from nfbmr.score.listing_stream import CHUNK_PICTURES
from nfbmr.score.planned_units import UNITS_PER_WAVE

REMEDIES: Mapping[str, str] = {
    "gpu": "more or faster GPUs: this is as it should be",
    "decode": "more cores per GPU, or run.decode = 'tasks' on the CPU group",
    "commit": "a larger run.unit_size, or a store that is nearer",
    "fetch": "more fetches at once, a nearer store, or archives instead of single files",
    "network": "nodes with a faster network, or smaller encoded pictures",
    "store gets": "tar or zip archives: fewer, larger objects; more prefixes",
    "store puts": "a larger run.unit_size",
    "driver, per unit": "a larger run.unit_size",
    "waves": "waves that grow with the number of GPUs, or actors that outlive a wave",
    "driver, planning": "several drivers that list and plan parts of the sources",
    "driver, memory": "a larger run.unit_size",
}
"""What moves each limit."""


@dataclass(frozen=True)
class Break:
    """A limit, the size at which it is reached, and what moves it."""

    limit: str
    at: str
    remedy: str = field(default="")


def breaks(costs: Costs, cluster: Cluster) -> list[Break]:
    """What breaks with more pictures or more GPUs, in the order in which it does.

    A station breaks at the number of GPUs that it can just keep busy; planning, which the driver
    does alone, where it takes as long as the scoring itself. Last comes the driver's memory: at how
    many pictures it is full. Merging grows with the cluster.
    """
    found: list[tuple[float, Break]] = []
    for name in ("store gets", "driver, per unit", "store puts"):
        gpus = station_rates(costs, cluster)[name] / costs.gpu_per_s
        found.append((gpus, Break(name, f"{gpus:,.0f} GPUs", REMEDIES[name])))
    gpus = UNITS_PER_WAVE * cluster.unit_size / (costs.wave_s * costs.gpu_per_s)
    found.append((gpus, Break("waves", f"{gpus:,.0f} GPUs (half of them idle)", REMEDIES["waves"])))
    gpus = 1 / (max(costs.list_s, costs.plan_s) * costs.gpu_per_s)
    planning = f"{gpus:,.0f} GPUs (as long as the scoring)"
    found.append((gpus, Break("driver, planning", planning, REMEDIES["driver, planning"])))
    ordered = [entry for _, entry in sorted(found, key=lambda pair: pair[0])]
    left_bytes = cluster.driver_bytes - CHUNK_PICTURES * costs.plan_bytes
    per_unit = costs.unit_bytes + LISTED_UNIT_BYTES
    pictures = min(
        max(0.0, left_bytes) / (costs.unit_bytes / cluster.unit_size + costs.name_bytes),
        cluster.unit_size * cluster.driver_bytes / per_unit,
    )
    memory = Break("driver, memory", f"{pictures:,.0f} pictures", REMEDIES["driver, memory"])
    return [*ordered, memory]
