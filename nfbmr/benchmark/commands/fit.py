"""Seconds of a fit, against the loop that the paper describes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from nfbmr.benchmark.commands.arguments import Kinds, add_labelled_data, benchmark_config
from nfbmr.benchmark.fit_speed import FitSpeedRequest, measure_fit_speed
from nfbmr.benchmark.fit_ways import FIT_SPEED_HEADER, fit_speed_rows
from nfbmr.errors import ConfigError
from nfbmr.progress import Progress, table


def add_fit(kinds: Kinds) -> None:
    """Add ``fit``."""
    parser = kinds.add_parser("fit", help="seconds of a fit, against the paper's loop")
    add_labelled_data(parser)
    parser.add_argument(
        "--epochs", type=int, default=2, help="timed per stage, 2 or more (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="time a compiled step as well")
    parser.set_defaults(run=_fit)


def _fit(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    if arguments.epochs < 2:
        raise ConfigError(f"--epochs {arguments.epochs}: at least 2, the first only warms up.")
    if arguments.categories and len(arguments.categories) > 1:
        raise ConfigError(f"--categories {' '.join(arguments.categories)}: a fit is of one.")
    result = measure_fit_speed(
        FitSpeedRequest(
            arguments.data,
            arguments.layout,
            arguments.categories[0] if arguments.categories else None,
            benchmark_config(arguments),
            arguments.epochs,
            arguments.compile,
            work_dir,
        ),
        Progress(),
    )
    print(f"\n{result.pictures} pictures of {result.category}, {result.features_s:.0f} s of every")
    print("cached way are the one pass of the backbone\n")
    print(f"{table(fit_speed_rows(result), FIT_SPEED_HEADER)}\n")
    if result.default.gpu_peak_mib is not None:
        total_mib = torch.cuda.get_device_properties(0).total_memory / 2**20
        together = int(total_mib / result.default.gpu_peak_mib)
        print(f"A default fit took {result.default.gpu_peak_mib:.0f} MiB of the GPU: its memory")
        print(f"holds {together} fits side by side\n")
    return {"benchmark": "fit", **result.as_dict()}
