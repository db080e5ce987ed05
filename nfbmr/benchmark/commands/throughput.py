"""Images per second: the backbone alone, a plain loop, the scoring job, a peer."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import ray

from nfbmr.benchmark.commands.arguments import Kinds, add_labelled_data, benchmark_config
from nfbmr.benchmark.packing import KINDS
from nfbmr.benchmark.throughput import ThroughputRequest, measure_throughput
from nfbmr.benchmark.throughput_table import throughput_text
from nfbmr.progress import Progress


def add_throughput(kinds: Kinds) -> None:
    """Add ``throughput``."""
    parser = kinds.add_parser("throughput", help="images/s: backbone, plain loop, scoring job")
    add_labelled_data(parser)
    parser.add_argument(
        "--pictures", type=int, default=2000, help="pictures to score (default: %(default)s)"
    )
    parser.add_argument(
        "--archives",
        nargs="+",
        choices=KINDS,
        default=["prefix"],
        metavar="KIND",
        help=f"kinds of archives to score from: {', '.join(KINDS)} (default: prefix)",
    )
    parser.add_argument(
        "--store",
        metavar="URI",
        help="score from here as well, for example s3://bucket/benchmark: the pictures are copied",
    )
    parser.add_argument("--endpoint", metavar="URL", help="of the object store: AWS_ENDPOINT_URL")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[], metavar="N", help="actors to compare: 1 2"
    )
    parser.add_argument(
        "--accuracy",
        action="store_true",
        help="fit in full and compare the AUROC of fast and plain forward passes",
    )
    parser.add_argument(
        "--peer", metavar="PYTHON", help="time anomalib as well: .venv-anomalib/bin/python"
    )
    parser.set_defaults(run=_throughput)


def _throughput(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = ThroughputRequest(
        arguments.data,
        arguments.layout,
        arguments.categories,
        benchmark_config(arguments),
        arguments.pictures,
        work_dir,
        cores=int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)),
        kinds=arguments.archives,
        store=arguments.store,
        workers=arguments.workers,
        accuracy=arguments.accuracy,
        peer=arguments.peer,
    )
    result = measure_throughput(request, Progress())
    print(f"\n{throughput_text(result)}\n")
    return {"benchmark": "throughput", **result.as_dict()}
