"""Memory over a long run of small drawn pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_places
from nfbmr.benchmark.soak import SoakRequest, run_soak, soak_text
from nfbmr.cli import config_of
from nfbmr.config import load_config

SOAK_SIZE_PX = 64
SOAK_UNIT_SIZE = 8


def add_soak(kinds: Kinds) -> None:
    """Add ``soak``."""
    parser = kinds.add_parser("soak", help="memory over a long run of small drawn pictures")
    parser.add_argument(
        "--pictures", type=int, default=200_000, help="pictures to score (default: %(default)s)"
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="between samples of memory"
    )
    add_places(parser)
    parser.set_defaults(run=_soak)


def _soak(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    if not (arguments.config or arguments.preset):
        # Small units, so that a run of 200,000 pictures has more than one wave of them.
        small = [f"backbone.image_size_px={SOAK_SIZE_PX}", f"run.unit_size={SOAK_UNIT_SIZE}"]
        config = load_config(preset="small", overrides=[*small, *arguments.overrides])
    else:
        config = config_of(arguments)
    request = SoakRequest(arguments.pictures, config, work_dir, arguments.interval)
    result = run_soak(request)
    print(f"\n{soak_text(result)}\n")
    return {"benchmark": "soak", "passed": result.is_flat, **result.as_dict()}
