"""How well the reckoning of ``scale`` fits jobs that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nfbmr.benchmark.scale import Cluster, Costs, Prices, forecast, station_rates, waves


def check_against(jobs: Sequence[Mapping[str, Any]], costs: Costs) -> list[dict[str, Any]]:
    """Predict measured jobs of several actors or nodes from the measured job with fewest.

    A machine without GPUs is a cluster whose "GPUs" are its actors, each as fast as the one that
    was measured, and whose cores do all of the work, not the decoding alone.

    Args:
        jobs: as ``benchmark.py throughput --workers 1 2`` writes them: ``actors``, ``cores``,
            ``pictures``, ``unit_size``, ``per_s``, ``with_start_per_s``, ``cpu_seconds``, and
            ``nodes``.
        costs: of the driver and the store's requests; the rest is that of the first job.

    Returns:
        For each of the other jobs: measured and predicted pictures per second with actors up, the
        station that set the pace, and the error; the same of the whole job, from listing to the
        finished files.
    """
    ordered = sorted(jobs, key=lambda job: (job.get("nodes", 1), job["actors"]))
    base = ordered[0]
    per_actor = base["per_s"] / base["actors"]
    cpu_s = sum(base["cpu_seconds"].values()) / base["pictures"]
    costs = replace(costs, gpu_per_s=per_actor, decode_cpu_s=cpu_s)
    rows = []
    for job in ordered[1:]:
        actors = job["actors"]
        cores_each = job["cores"] / actors
        machine = Cluster(actors, cores_per_gpu=cores_each, unit_size=job["unit_size"])
        run = forecast(job["pictures"], costs, machine, Prices())
        pace_s = run.score_s - waves(job["pictures"], machine) * costs.wave_s
        predicted = job["pictures"] / pace_s
        stations = station_rates(costs, machine)  # With actors up: without the waves.
        rows.append(
            {
                "nodes": job.get("nodes", 1),
                "actors": actors,
                "measured_per_s": job["per_s"],
                "predicted_per_s": predicted,
                "slowest": min(stations, key=stations.__getitem__),
                "error": predicted / job["per_s"] - 1,
                "measured_whole_per_s": job["with_start_per_s"],
                "predicted_whole_per_s": run.per_s,
                "whole_error": run.per_s / job["with_start_per_s"] - 1,
            }
        )
    return rows
