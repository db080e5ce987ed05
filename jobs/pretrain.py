"""Make the small embedded backbone from procedural textures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from nfbmr.cli import run_job
from nfbmr.output_place import check_place
from nfbmr.progress import Progress, table
from nfbmr.train.pretraining import PretrainSettings, pretrain, save_backbone


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobs/pretrain.py",
        description="Train the small backbone on procedural textures and their defects.",
        epilog="example:\n  python jobs/pretrain.py --seed 0 --output small.safetensors",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="path or URI of the safetensors file")
    for field in fields(PretrainSettings):
        kind = float if isinstance(field.default, float) else int
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=field.default, help="default: %(default)s")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    check_place(arguments.output, is_file=True)
    names = [field.name for field in fields(PretrainSettings)]
    settings = PretrainSettings(**{name: getattr(arguments, name) for name in names})
    result = pretrain(settings, Progress().say)
    changed = [
        f"--{f.name.replace('_', '-')} {getattr(settings, f.name)}"
        for f in fields(PretrainSettings)
        if f.name == "seed" or getattr(settings, f.name) != f.default
    ]
    command = f"python jobs/pretrain.py {' '.join(changed)} --output FILE"
    size_bytes = save_backbone(result, arguments.output, command, settings.seed)
    rows = [
        ("texture classes", settings.classes),
        ("held-out accuracy", f"{result.held_out_accuracy:.1%}"),
        ("held-out AUROC of defects", result.held_out_defect_auroc),
        ("last loss", result.losses[-1]),
        ("seconds", f"{result.seconds:.0f}"),
        ("file", f"{arguments.output} ({size_bytes / 2**20:.1f} MiB)"),
    ]
    print(table(rows, ("pretraining", "")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
