"""Image AUROC of every map and aggregate."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nfbmr.benchmark.accuracy import (
    CategoryAccuracy,
    Spread,
    mean_over_categories,
    measure_accuracy,
    variants,
)
from nfbmr.benchmark.commands.arguments import Kinds, add_labelled_data, add_seeds, labelled_request
from nfbmr.evaluate import describe_rate
from nfbmr.progress import Progress, table


def add_accuracy(kinds: Kinds) -> None:
    """Add ``accuracy``."""
    parser = kinds.add_parser("accuracy", help="image AUROC of every map and aggregate")
    add_labelled_data(parser)
    add_seeds(parser)
    parser.set_defaults(run=_accuracy)


def accuracy_table(results: Sequence[CategoryAccuracy]) -> str:
    """Maps as rows, aggregates as columns; then a row per category and seed."""
    by_map = variants(results)
    aggregates = list(next(iter(by_map.values())))
    rows = [[name, *(str(spread) for spread in row.values())] for name, row in by_map.items()]
    header = ("category", "seed", "test pictures", "image AUROC", "aggregate", "false alarms", "s")
    fits = [
        (
            r.category,
            r.seed,
            r.pictures,
            r.image_auroc,
            r.aggregate,
            describe_rate(r.false_alarms),
            round(r.fit_s),
        )
        for r in results
    ]
    return f"{table(rows, ('map', *aggregates))}\n\n{table(fits, header)}"


def _accuracy(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = labelled_request(arguments, work_dir)
    started = time.monotonic()
    results = measure_accuracy(request, Progress())
    print(f"\n{accuracy_table(results)}\n")
    print("\n".join(sentence for result in results for sentence in result.verdicts()) + "\n")
    default = mean_over_categories(results, lambda result: result.image_auroc)
    return {
        "benchmark": "accuracy",
        "image_auroc": default.mean,
        "image_auroc_spread": default.spread,
        "seconds": time.monotonic() - started,
        "seeds": arguments.seeds,
        "image_size_px": request.config.backbone.image_size_px,
        "variants": _plain(variants(results)),
        "categories": [_with_verdicts(result) for result in results],
    }


def _with_verdicts(result: CategoryAccuracy) -> dict[str, object]:
    return {
        **asdict(result),
        "best_aggregate": result.best_aggregate,
        "lost_points": result.lost_points,
        "false_alarms_as_requested": result.false_alarms_as_requested,
    }


def _plain(spreads: dict[str, dict[str, Spread]]) -> dict[str, dict[str, dict[str, object]]]:
    return {m: {a: asdict(spread) for a, spread in row.items()} for m, row in spreads.items()}
