"""The five rows of the paper's Table 5."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nfbmr.benchmark.ablation import ablation_json, ablation_table, measure_ablation
from nfbmr.benchmark.commands.arguments import Kinds, add_labelled_data, add_seeds, labelled_request
from nfbmr.progress import Progress


def add_ablation(kinds: Kinds) -> None:
    """Add ``ablation``."""
    parser = kinds.add_parser("ablation", help="the five rows of the paper's Table 5")
    add_labelled_data(parser)
    add_seeds(parser)
    parser.set_defaults(run=_ablation)


def _ablation(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = labelled_request(arguments, work_dir)
    started = time.monotonic()
    results = measure_ablation(request, Progress())
    print(f"\n{ablation_table(results)}\n")
    return {
        **ablation_json(results),
        "seconds": time.monotonic() - started,
        "seeds": arguments.seeds,
        "image_size_px": request.config.backbone.image_size_px,
        "settings": request.config.as_dict(),
    }
