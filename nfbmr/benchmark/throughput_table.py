"""What the throughput benchmark found, as tables and sentences for people."""

from __future__ import annotations

from nfbmr.benchmark.scoring_job import LIST, JobRate
from nfbmr.benchmark.throughput import Throughput
from nfbmr.progress import table
from nfbmr.score.forward_difference import ForwardDifference
from nfbmr.score.stage_clock import STAGES


def throughput_text(result: Throughput) -> str:
    """All of it."""
    parts = [_ways(result), _jobs(result.jobs), _stages(result), result.jobs[0].bottleneck()]
    if result.forward is not None:
        parts.append(ForwardDifference(**result.forward).sentence() + ".")
    if result.numerics:
        parts.append(_numerics(result))
    return "\n\n".join(parts)


def _ways(result: Throughput) -> str:
    """A row per way of doing it."""
    first = result.jobs[0]
    rates = {
        "(a) bare backbone, forward passes": result.backbone_per_s,
        "(b) plain loop, one process": result.loop_per_s,
        "(c) scoring job, actors up": first.per_s,
        "(c) scoring job, start-up included": first.with_start_per_s,
        "what the stages' own CPU costs allow": result.allowed_per_s,
    }
    if result.peer:
        rates["anomalib predict"] = result.peer["predict_per_s"]
        rates["anomalib predict, no drawings"] = result.peer["predict_without_drawings_per_s"]
    rows = [(name, rate, first.per_s / rate) for name, rate in rates.items()]
    return table(rows, (f"{result.pictures} pictures", "images/s", "(c) over it"))


def _jobs(jobs: list[JobRate]) -> str:
    """A row per archive and number of actors."""
    shown = (LIST, *STAGES)
    rows = []
    for job in jobs:
        shares = job.shares()
        rows.append(
            (
                job.source,
                job.actors,
                job.per_s,
                job.per_s / jobs[0].per_s,
                f"{job.busy:.0%}",
                *(f"{shares[stage]:.0%}" for stage in shown),
            )
        )
    header = ("archive", "actors", "images/s", "of first", "cores busy")
    return table(rows, (*header, *(f"{stage}, CPU" for stage in shown)))


def _stages(result: Throughput) -> str:
    """A row per stage: alone, and in the first job."""
    job = result.jobs[0]
    alone_s = sum(result.stage_cpu_seconds.values())
    rows: list[tuple[object, ...]] = [(LIST, None, None, job.list_cpu_s, job.list_s)]
    for stage in STAGES:
        cost_s = result.stage_cpu_seconds[f"{stage}_cpu_s"]
        in_job = job.cpu_seconds[f"{stage}_cpu_s"], job.seconds[f"{stage}_s"]
        rows.append((stage, cost_s, f"{cost_s / alone_s:.0%}", *in_job))
    header = ("stage", "alone, CPU s", "share", "in the job, CPU s", "with waiting, s")
    return table(rows, header)


def _numerics(result: Throughput) -> str:
    rows = [
        (
            r.category,
            r.pictures,
            r.image_auroc_float32,
            r.image_auroc,
            f"{r.score_share:.2%}",
            r.p_value,
            r.changed_decisions,
        )
        for r in result.numerics
    ]
    header = ("category", "pictures", "AUROC float32", "AUROC fast", "largest change of a score")
    return table(rows, (*header, "of a p-value", "other decisions"))
