"""Images per second of one device beside its measured ceilings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_json
from nfbmr.benchmark.gpu import Sizes, measure_device
from nfbmr.benchmark.gpu_table import device_table
from nfbmr.cli import add_config_arguments, config_of
from nfbmr.model.precision import BFLOAT16
from nfbmr.progress import Progress


def add_gpu(kinds: Kinds) -> None:
    """Add ``gpu``."""
    parser = kinds.add_parser("gpu", help="images/s of one device beside its measured ceilings")
    defaults = Sizes()
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument(
        "--matrix", type=int, default=defaults.matrix, help="side of the matmul ceiling's matrices"
    )
    parser.add_argument(
        "--copy-mib", type=int, default=defaults.copy_mib, help="buffers of the memory ceilings"
    )
    parser.add_argument(
        "--seconds", type=float, default=defaults.least_s, help="of every measurement, at least"
    )
    add_json(parser)
    add_config_arguments(parser)
    parser.set_defaults(run=_gpu, work_dir=None, ray_address=None, needs_ray=False)


def _gpu(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    """By default the paper's network, size and heads, with forward passes in bfloat16."""
    if not (arguments.preset or arguments.config):
        arguments.preset = "paper"
    config = config_of(arguments)
    if not any(text.startswith("backbone.precision") for text in arguments.overrides):
        config = replace(config, backbone=replace(config.backbone, precision=BFLOAT16))
    sizes = Sizes(
        batch_size=arguments.batch_size,
        unit_size=config.run.unit_size,
        matrix=arguments.matrix,
        copy_mib=arguments.copy_mib,
        least_s=arguments.seconds,
    )
    rates = measure_device(config, sizes, Progress())
    print(f"\n{device_table(rates)}\n")
    return {"benchmark": "gpu", **rates.as_dict()}
