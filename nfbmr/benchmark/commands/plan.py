"""Time and memory of planning, apart from listing."""

from __future__ import annotations

import argparse
from pathlib import Path

from nfbmr.benchmark.commands.arguments import Kinds, add_json
from nfbmr.benchmark.plan import measure_planning
from nfbmr.cli import add_config_arguments, config_of
from nfbmr.progress import table


def add_plan(kinds: Kinds) -> None:
    """Add ``plan``."""
    parser = kinds.add_parser("plan", help="time and memory of planning, apart from listing")
    parser.add_argument(
        "--pictures", type=int, default=1_000_000, help="to plan (default: %(default)s)"
    )
    add_json(parser)
    add_config_arguments(parser)
    parser.set_defaults(run=_plan, work_dir=None, ray_address=None, needs_ray=False)


def _plan(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    result = measure_planning(arguments.pictures, config_of(arguments).run.unit_size)
    rows = [[step, seconds] for step, seconds in result.seconds.items()]
    print(f"\n{table(rows, (f'{result.pictures} pictures', 's'))}\n")
    print(
        f"{result.units} units; resident at most {result.resident_peak_mib:.0f} MiB, of which "
        f"{result.resident_before_mib:.0f} MiB before planning"
    )
    return {"benchmark": "plan", **result.as_dict()}
