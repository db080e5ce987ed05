"""A run on many GPUs, reckoned from what was measured."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_json
from nfbmr.benchmark.driver_cost import measure_driver
from nfbmr.benchmark.scale import Cluster, Prices, check_against
from nfbmr.benchmark.scale_report import (
    GPU_COUNTS,
    PICTURE_COUNTS,
    costs_of,
    forecasts,
    read_jobs,
    scale_text,
)


def add_scale(kinds: Kinds) -> None:
    """Add ``scale``."""
    parser = kinds.add_parser("scale", help="reckon a run on many GPUs, and what breaks")
    parser.add_argument(
        "--throughput",
        required=True,
        metavar="FILE",
        help="that throughput --json FILE wrote",
    )
    parser.add_argument(
        "--gpu-per-s", type=float, required=True, help="images/s of one GPU, backbone and heads"
    )
    parser.add_argument(
        "--gpu-measured", action="store_true", help="--gpu-per-s was measured, not assumed"
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPU_COUNTS))
    parser.add_argument("--pictures", type=int, nargs="+", default=list(PICTURE_COUNTS))
    parser.add_argument("--picture-bytes", type=float, default=700_000, help="encoded")
    parser.add_argument("--unit-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--driver-gib", type=float, default=32, help="default: %(default)s")
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="price; default: %(default)s")
    add_json(parser)
    parser.add_argument("--ray-address", metavar="ADDRESS", help="default: this machine")
    parser.set_defaults(run=_scale, work_dir=None)


def _scale(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    found_jobs = read_jobs(arguments.throughput)
    driver = measure_driver(pictures=200_000, units=1000, unit_size=arguments.unit_size)
    assumed = ["size of a picture", "prices", "store's requests/s", "network"]
    assumed += [] if arguments.gpu_measured else ["images/s of a GPU"]
    most = max(found_jobs, key=lambda job: float(job["actors"]))
    assumed += ["cores and fetches per GPU"]
    assumed += [] if "disk" not in str(most.get("source")) else ["fetching from a store (a disk's)"]
    costs = costs_of(most, driver, arguments.gpu_per_s, arguments.picture_bytes, assumed)
    cluster = Cluster(1, unit_size=arguments.unit_size, driver_bytes=arguments.driver_gib * 2**30)
    prices = Prices(gpu_hour=arguments.gpu_hour)
    found = forecasts(costs, cluster, arguments.gpus, arguments.pictures, prices)
    print(f"\n{scale_text(costs, cluster, found, found_jobs)}\n")
    return {
        "benchmark": "scale",
        "costs": asdict(costs),
        "forecasts": [run.as_dict() for run in found],
        "checked": check_against(found_jobs, costs, arguments.unit_size),
    }
