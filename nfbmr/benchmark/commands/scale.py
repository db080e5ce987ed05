"""A run on many GPUs, reckoned from what was measured."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_json
from nfbmr.benchmark.driver_cost import measure_driver
from nfbmr.benchmark.scale import LIST_PAGE, Cluster, Prices
from nfbmr.benchmark.scale_check import check_against
from nfbmr.benchmark.scale_report import (
    GPU_COUNTS,
    PICTURE_COUNTS,
    costs_of,
    forecasts,
    read_jobs,
    scale_text,
)
from nfbmr.data.archives import LISTING_THREADS


def add_scale(kinds: Kinds) -> None:
    """Add ``scale``."""
    parser = kinds.add_parser("scale", help="reckon a run on many GPUs, and what breaks")
    parser.add_argument(
        "--throughput",
        required=True,
        nargs="+",
        metavar="FILE",
        help="that throughput --json FILE wrote, on one node and perhaps on several",
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
    parser.add_argument(
        "--list-page-s", type=float, default=0.2, help="of 1000 keys; default: %(default)s"
    )
    parser.add_argument(
        "--list-pages-at-once", type=int, default=LISTING_THREADS, help="default: %(default)s"
    )
    parser.add_argument("--unit-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--driver-gib", type=float, default=32, help="default: %(default)s")
    parser.add_argument(
        "--may-repeat",
        action="store_true",
        help="sources may name a picture twice (manifests): the driver remembers names",
    )
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="price; default: %(default)s")
    add_json(parser)
    parser.add_argument("--ray-address", metavar="ADDRESS", help="default: this machine")
    parser.set_defaults(run=_scale, work_dir=None)


def _scale(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    found_jobs = [job for file in arguments.throughput for job in read_jobs(file)]
    driver = measure_driver(pictures=200_000, units=1000, unit_size=arguments.unit_size)
    assumed = ["size of a picture", "prices", "store's requests/s", "network"]
    assumed += [] if arguments.gpu_measured else ["images/s of a GPU"]
    alone = [job for job in found_jobs if job.get("nodes", 1) == 1] or found_jobs
    # Its start and its costs are taken; the others, with more actors, are what is predicted.
    base = min(alone, key=lambda job: float(job["actors"]))
    assumed += ["cores and fetches per GPU"]
    assumed += [] if "disk" not in str(base.get("source")) else ["fetching from a store (a disk's)"]
    assumed += ["listing"]
    list_s = arguments.list_page_s / LIST_PAGE / arguments.list_pages_at_once
    costs = costs_of(
        base,
        driver,
        arguments.gpu_per_s,
        arguments.picture_bytes,
        list_s,
        assumed,
        may_repeat=arguments.may_repeat,
    )
    cluster = Cluster(1, unit_size=arguments.unit_size, driver_bytes=arguments.driver_gib * 2**30)
    prices = Prices(gpu_hour=arguments.gpu_hour)
    found = forecasts(costs, cluster, arguments.gpus, arguments.pictures, prices)
    print(f"\n{scale_text(costs, cluster, found, found_jobs)}\n")
    return {
        "benchmark": "scale",
        "costs": asdict(costs),
        "forecasts": [run.as_dict() for run in found],
        "checked": check_against(found_jobs, costs),
    }
