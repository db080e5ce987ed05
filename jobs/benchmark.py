"""Measure how accurate and how fast nfbmr is on given pictures and weights, and how steady.

The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nfbmr import storage
from nfbmr.benchmark.commands.ablation import add_ablation
from nfbmr.benchmark.commands.accuracy import add_accuracy
from nfbmr.benchmark.commands.fit import add_fit
from nfbmr.benchmark.commands.gpu import add_gpu
from nfbmr.benchmark.commands.plan import add_plan
from nfbmr.benchmark.commands.scale import add_scale
from nfbmr.benchmark.commands.soak import add_soak
from nfbmr.benchmark.commands.throughput import add_throughput
from nfbmr.benchmark.exit_code import exit_code
from nfbmr.benchmark.machine import machine
from nfbmr.cli import run_job
from nfbmr.errors import ConfigError
from nfbmr.output_place import check_place
from nfbmr.session import ray_session


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobs/benchmark.py",
        description=__doc__,
        epilog="example:\n  python jobs/benchmark.py accuracy --layout mtd --data /data/mtd "
        "--weights mobilenetv2.safetensors\n"
        "  python jobs/benchmark.py fit --layout mtd --data /data/mtd "
        "--weights mobilenetv2.safetensors\n"
        "  python jobs/benchmark.py ablation --layout mvtec --data /data/mvtec --preset paper\n"
        "  python jobs/benchmark.py ablation --layout dagm --data /data/dagm --preset paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(needs_ray=True)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for add in (
        add_accuracy,
        add_throughput,
        add_gpu,
        add_fit,
        add_ablation,
        add_scale,
        add_plan,
        add_soak,
    ):
        add(kinds)
    return parser


def _finish(result: dict[str, object], file: str | None) -> int:
    """Write and print the object; the exit code says whether what was asked of it holds."""
    line = json.dumps({**result, "machine": machine()})
    print(line)
    if file:
        storage.write_atomically(storage.absolute_uri(file), f"{line}\n".encode())
    return exit_code(result)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_place(arguments.json, is_file=True)
    if getattr(arguments, "endpoint", None):
        # Workers of a local Ray inherit it.
        os.environ["AWS_ENDPOINT_URL"] = arguments.endpoint
    if arguments.work_dir and "://" in arguments.work_dir:
        raise ConfigError(
            f"--work-dir {arguments.work_dir} is no folder: benchmarks keep their files on a disk "
            "(with --ray-address one that all nodes share)."
        )
    with ExitStack() as stack:
        folder = arguments.work_dir or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="nfbmr-benchmark-")
        )
        if arguments.needs_ray:
            stack.enter_context(ray_session(arguments.ray_address))
        return _finish(arguments.run(arguments, Path(folder).absolute()), arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
