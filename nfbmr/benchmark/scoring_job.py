"""The scoring job, timed: images per second, seconds by stage, and where its bottleneck is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from nfbmr import storage
from nfbmr.errors import DataError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.resources import cluster_gpus, fitting_actors, pool_sizes
from nfbmr.score.run import ScoringRequest, prepare, score
from nfbmr.score.stage_clock import STAGES
from nfbmr.score.summary import ScoringSummary
from nfbmr.settings import RunSettings

LIST = "list"
_BUSY = 0.6
_REMEDIES = {
    "fetch": "a store that is nearer or faster, or archives instead of many small files",
    "decode": "more cores (on GPU nodes run.decode_threads, or run.decode = 'tasks'), or smaller "
    "pictures",
    "forward": "a GPU, more cores, backbone.precision = 'mixed', a smaller image size or backbone",
    "heads": "narrower heads (flow.hidden_channels, mapper.latent_channels), or a GPU",
    "commit": "a larger run.unit_size",
}


@dataclass(frozen=True)
class JobRate:
    """How fast one scoring job was.

    Attributes:
        source: what it scored: kind of archive and place.
        actors: backbone actors.
        cores: of the cluster.
        nodes: of the cluster.
        pictures: scored.
        unit_size: pictures per unit.
        per_s: images per second from the first finished unit to the last.
        with_start_per_s: with listing, planning, start of the actors and the final files.
        list_s: listing and planning, wall-clock seconds.
        list_cpu_s: the same, CPU seconds.
        seconds: worker seconds by stage, waiting included.
        cpu_seconds: CPU seconds by stage.
    """

    source: str
    actors: int
    cores: float
    nodes: int
    pictures: int
    unit_size: int
    per_s: float
    with_start_per_s: float
    list_s: float
    list_cpu_s: float
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]

    @property
    def busy(self) -> float:
        """Share of the cores' time in which a stage worked, actors up."""
        return sum(self.cpu_seconds.values()) * self.per_s / (self.pictures * self.cores)

    def shares(self) -> dict[str, float]:
        """Share of each stage in the CPU seconds of listing and all stages."""
        costs = {LIST: self.list_cpu_s, **{s: self.cpu_seconds[f"{s}_cpu_s"] for s in STAGES}}
        total = sum(costs.values()) or 1.0
        return {stage: cost / total for stage, cost in costs.items()}

    def bottleneck(self) -> str:
        """One sentence: what holds the job up, and what would move it."""
        if self.busy >= _BUSY:
            shares = {stage: share for stage, share in self.shares().items() if stage != LIST}
            stage = max(shares, key=lambda name: shares[name])
            return (
                f"The cores are busy {self.busy:.0%} of the time, and {stage} takes "
                f"{shares[stage]:.0%} of it: what helps is {_REMEDIES[stage]}."
            )
        waiting = {s: self.seconds[f"{s}_s"] - self.cpu_seconds[f"{s}_cpu_s"] for s in STAGES}
        stage = max(waiting, key=lambda name: waiting[name])
        return (
            f"The cores are busy {self.busy:.0%} of the time only: workers mostly wait in "
            f"{stage} ({waiting[stage]:.1f} s); what helps is {_REMEDIES[stage]}."
        )


class _Clock(Progress):
    """Notes when the scoring job's units come in."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, int]] = []

    @contextmanager
    def counter(
        self, what: str, total: int, drawn: bool = False
    ) -> Iterator[Callable[[int], None]]:
        with super().counter(what, total, drawn) as count:

            def note(done: int) -> None:
                self.marks.append((time.monotonic(), done))
                count(done)

            yield note

    def rate(self) -> float:
        """Images per second after the first mark."""
        (started, at_start), (ended, at_end) = self.marks[0], self.marks[-1]
        if ended <= started:
            raise DataError(
                "Too few pictures to measure: the job finished with its first unit. Ask for more "
                "--pictures, or make run.unit_size smaller."
            )
        return (at_end - at_start) / (ended - started)


def time_job(
    source: str,
    named: str,
    output: str,
    registry: Registry,
    settings: RunSettings,
    weights: str | None = None,
) -> tuple[JobRate, ScoringSummary]:
    """List, plan, score and commit an archive. Needs a Ray session.

    Args:
        source: the archive.
        named: what it is, for the table.
        output: a folder or prefix that is new.
        registry: where the models are.
        settings: resources.
        weights: where the backbone's weights are, if not where they were at training.

    Raises:
        DataError: there are too few pictures to measure.
    """
    request = ScoringRequest((source,), output, weights=weights)
    clock = _Clock()
    started, cpu_s = time.monotonic(), time.process_time()
    plan = prepare(request, storage.absolute_uri(output), registry, settings, clock)
    list_s, list_cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    summary = score(request, registry, settings, clock)
    elapsed_s = time.monotonic() - started
    fitting, on_gpus = fitting_actors(settings), cluster_gpus(settings) > 0
    rate = JobRate(
        source=named,
        actors=pool_sizes(settings, fitting, len(plan.units), on_gpus=on_gpus)[1],
        cores=float(ray.cluster_resources().get("CPU", 1.0)),
        nodes=sum(bool(node["Alive"]) for node in ray.nodes()),
        pictures=summary.pictures,
        unit_size=settings.unit_size,
        per_s=clock.rate(),
        with_start_per_s=summary.pictures / elapsed_s,
        list_s=list_s,
        list_cpu_s=list_cpu_s,
        seconds=dict(summary.seconds_by_stage),
        cpu_seconds=dict(summary.cpu_seconds_by_stage),
    )
    return rate, summary


def allowed_per_s(cpu_seconds: Mapping[str, float], pictures: int, cores: float) -> float:
    """Images per second if the cores did nothing but the stages, all the time."""
    return pictures * cores / sum(cpu_seconds.values())
