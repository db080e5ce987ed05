"""The five rows of the paper's Table 5."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nfbmr.benchmark.ablation import Ablation, measure_ablation
from nfbmr.benchmark.ablation_table import ablation_json, ablation_table
from nfbmr.benchmark.commands.arguments import Kinds, add_labelled_data, add_seeds, labelled_request
from nfbmr.progress import Progress


def add_ablation(kinds: Kinds) -> None:
    """Add ``ablation``."""
    parser = kinds.add_parser(
        "ablation",
        help="the five rows of the paper's Table 5",
        description="The five rows of the paper's Table 5. With --work-dir the rows of every "
        "category and seed are kept there, and the same command goes on with what is missing. "
        "Exits with 8 where a fit failed.",
    )
    add_labelled_data(parser)
    add_seeds(parser)
    parser.set_defaults(run=_ablation)


def _ablation(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = labelled_request(arguments, work_dir)
    started = time.monotonic()
    ablation = measure_ablation(request, Progress())
    print(f"\n{ablation_table(ablation)}\n")
    if ablation.failures:
        print(f"{failures_text(ablation, is_kept=bool(arguments.work_dir))}\n")
    return {
        **ablation_json(ablation),
        "seconds": time.monotonic() - started,
        "seeds": arguments.seeds,
        "image_size_px": request.config.backbone.image_size_px,
        "settings": request.config.as_dict(),
    }


def failures_text(ablation: Ablation, *, is_kept: bool) -> str:
    """Which fits failed, why, and what to do next.

    Args:
        ablation: with at least one failure.
        is_kept: whether the rows of the others are kept for the next run.
    """
    measured = len({(row.category, row.seed) for row in ablation.results})
    total = measured + len(ablation.failures)
    lines = [f"{len(ablation.failures)} of {total} fits of all rows failed; the table is without:"]
    lines += [f"  {f.category}, seed {f.seed}: {f.error}" for f in ablation.failures]
    if is_kept:
        lines.append("Mend the cause and run the same command again: it makes only these fits.")
    else:
        lines.append("With --work-dir the same command would keep the others and make only these.")
    return "\n".join(lines)
