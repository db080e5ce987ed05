"""From measured costs to the tables of ``benchmark.py scale``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfbmr.benchmark.driver_cost import DriverCosts
from nfbmr.benchmark.scale import NAME_BYTES, Cluster, Costs, Forecast, Prices, forecast
from nfbmr.benchmark.scale_check import check_against
from nfbmr.benchmark.scale_limits import REMEDIES, breaks
from nfbmr.errors import ConfigError
from nfbmr.progress import table

GPU_COUNTS = (1, 4, 16, 64, 256)
PICTURE_COUNTS = (10**7, 10**8, 10**9, 10**10)


def read_jobs(path: str) -> list[dict[str, Any]]:
    """The scoring jobs that ``benchmark.py throughput --json`` measured.

    Raises:
        ConfigError: the file is missing, or is no such file.
    """
    try:
        jobs = json.loads(Path(path).read_text())["jobs"]
        names = ("actors", "cores", "pictures", "unit_size", "per_s", "with_start_per_s")
        if not all(
            name in job for job in jobs for name in (*names, "list_s", "seconds", "cpu_seconds")
        ):
            raise KeyError("seconds")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--throughput {path} is no file of measured jobs ({type(error).__name__}: {error}): "
            "make one with jobs/benchmark.py throughput --workers 1 2 --json FILE."
        ) from error
    return list(jobs)


def costs_of(
    job: Mapping[str, Any],
    driver: DriverCosts,
    gpu_per_s: float,
    encoded_bytes: float,
    list_s: float,
    assumed: Sequence[str],
    *,
    may_repeat: bool = False,
) -> Costs:
    """Costs from one measured job, the measured driver, and what is only assumed.

    Args:
        job: see ``read_jobs``.
        driver: measured on this machine.
        gpu_per_s: pictures per second of one GPU.
        encoded_bytes: of a picture.
        list_s: seconds until a picture is listed.
        assumed: names of what was not measured.
        may_repeat: the sources may name a picture twice, so that names are remembered.
    """
    pictures = job["pictures"]
    start_s = pictures / job["with_start_per_s"] - pictures / job["per_s"] - job["list_s"]
    start_s -= pictures * driver.merge_s  # The finished files are in it, too.
    return Costs(
        gpu_per_s=gpu_per_s,
        decode_cpu_s=job["cpu_seconds"]["decode_cpu_s"] / pictures,
        fetch_s=job["seconds"]["fetch_s"] / pictures,
        commit_s=job["seconds"]["commit_s"] / pictures,
        list_s=list_s,
        plan_s=driver.plan_s,
        plan_bytes=driver.plan_bytes,
        unit_bytes=driver.unit_bytes,
        unit_driver_s=driver.unit_driver_s,
        wave_s=max(0.0, start_s),
        merge_s=driver.merge_s,
        row_bytes=driver.row_bytes,
        encoded_bytes=encoded_bytes,
        name_bytes=NAME_BYTES if may_repeat else 0.0,
        assumed=tuple(assumed),
    )


def forecasts(
    costs: Costs, cluster: Cluster, gpus: Sequence[int], pictures: Sequence[int], prices: Prices
) -> list[Forecast]:
    """A forecast for every size of run on every size of cluster."""
    return [
        forecast(count, costs, replace(cluster, gpus=number), prices)
        for count in pictures
        for number in gpus
    ]


def scale_text(
    costs: Costs, cluster: Cluster, found: Sequence[Forecast], jobs: list[dict[str, Any]]
) -> str:
    """The tables: runs, what breaks, how well the reckoning fits what was measured here."""
    runs = [
        (
            f"{run.pictures:,}",
            run.gpus,
            f"{run.per_s:,.0f}",
            f"{run.total_s / 3600:,.1f}",
            f"{run.plan_s / run.total_s:.0%}",
            f"{run.merge_s / run.total_s:.0%}",
            run.slowest,
            f"{run.gpu_use:.0%}",
            f"{run.driver_bytes / 2**30:,.0f}" + ("" if run.driver_fits else " (too much)"),
            f"{run.files['units']:,}",
            f"{run.files['finished']:,}",
            f"{sum(run.requests.values()):,}",
            f"{run.requests_cost:,.0f}",
            f"{run.cost:,.0f}",
        )
        for run in found
    ]
    header: tuple[str, ...] = (
        "pictures",
        "GPUs",
        "images/s",
        "hours",
        "plan",
        "merge",
        "slowest",
        "GPU use",
    )
    header += ("driver GiB", "unit files", "files", "requests", "their cost", "whole cost")
    limits = [(b.limit, b.at, b.remedy) for b in breaks(costs, cluster)]
    parts = [table(runs, header), table(limits, ("what breaks", "at", "what moves it"))]
    checks = check_against(jobs, costs)
    if checks:
        parts.append(_checks_table(checks))
    slow = sorted({run.slowest for run in found})
    parts += [f"{name}: {REMEDIES[name]}." for name in slow]
    parts.append(
        f"A picture: {costs.decode_cpu_s * 1000:.1f} ms of decoding, {costs.fetch_s * 1000:.1f} ms "
        f"of fetching, {costs.commit_s * 1000:.2f} ms of commit, {costs.merge_s * 1000:.2f} ms of "
        f"merge, {costs.list_s * 1e6:.0f} us of listing, {costs.plan_s * 1e6:.0f} us "
        f"of planning; a unit: {costs.unit_driver_s * 1000:.1f} ms of the driver, "
        f"{costs.unit_bytes:.0f} bytes; a wave: {costs.wave_s:.0f} s."
    )
    parts.append(f"Assumed, not measured: {', '.join(costs.assumed) or 'nothing'}.")
    return "\n\n".join(parts)


def _checks_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """What ``check_against`` found, a row per measured job."""
    rows: list[tuple[object, ...]] = [
        (
            c["nodes"],
            c["actors"],
            c["measured_per_s"],
            c["predicted_per_s"],
            "actors" if c["slowest"] == "gpu" else "cores",
            f"{c['error']:+.0%}",
            c["measured_whole_per_s"],
            c["predicted_whole_per_s"],
            f"{c['whole_error']:+.0%}",
        )
        for c in checks
    ]
    header: tuple[str, ...] = (
        "nodes",
        "actors",
        "measured images/s",
        "predicted",
        "slowest",
        "error",
    )
    header += ("measured, whole job", "predicted", "error")
    return table(rows, header)
