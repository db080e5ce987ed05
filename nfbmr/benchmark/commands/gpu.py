"""Images per second of one device beside its measured ceilings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_json
from nfbmr.benchmark.fits_together import FitsRequest, measure_fits_together
from nfbmr.benchmark.gpu import Sizes, measure_device
from nfbmr.benchmark.gpu_table import device_table, fits_table
from nfbmr.cli import add_config_arguments, config_of
from nfbmr.errors import ConfigError
from nfbmr.model.precision import BFLOAT16
from nfbmr.model.runner import best_device
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
    parser.add_argument(
        "--fits", type=int, nargs="*", default=[1, 2, 4], metavar="N",
        help="so many categories fitted at the same time; none to leave it out "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", type=int, default=240, help="of such a category (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=4, help="timed per stage, 3 or more (default: %(default)s)"
    )
    add_json(parser)
    add_config_arguments(parser)
    parser.set_defaults(run=_gpu, work_dir=None, ray_address=None, needs_ray=False)


def _gpu(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    """By default the paper's network, size and heads, with forward passes in bfloat16."""
    if arguments.epochs < 3 or min(arguments.fits, default=1) < 1:
        raise ConfigError(
            "--epochs: at least 3, the first and the last count for little; --fits: 1 on."
        )
    if not (arguments.preset or arguments.config):
        arguments.preset = "paper"
    config = config_of(arguments)
    is_chosen = any(text.startswith("backbone.precision") for text in arguments.overrides)
    if not (is_chosen or arguments.config):
        config = replace(config, backbone=replace(config.backbone, precision=BFLOAT16))
    sizes = Sizes(
        batch_size=arguments.batch_size,
        unit_size=config.run.unit_size,
        matrix=arguments.matrix,
        copy_mib=arguments.copy_mib,
        least_s=arguments.seconds,
    )
    progress, device = Progress(), best_device()
    rates = measure_device(config, sizes, progress, device)
    print(f"\n{device_table(rates)}\n")
    request = FitsRequest(config, rates.shape, arguments.pictures, arguments.epochs, device)
    fits = measure_fits_together(request, arguments.fits, progress)
    if fits:
        print(f"\nfits of {request.pictures} pictures, features {rates.shape}\n")
        print(f"{fits_table(fits)}\n")
    return {"benchmark": "gpu", **rates.as_dict(), "fits": [fit.as_dict() for fit in fits]}
