"""Table 5 as text and as JSON, the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nfbmr.benchmark.ablation import Ablation
from nfbmr.benchmark.ablation_task import RowResult, row_name
from nfbmr.benchmark.accuracy import Spread
from nfbmr.progress import table
from nfbmr.published import DAGM, TABLE5, AblationRow, published

_BLOCKS_OF_TABLES_1_TO_4 = 2
"""n of the detector whose numbers the paper gives by category."""

_DAGM = "dagm"


def ablation_spreads(results: Sequence[RowResult], of: str = "image_auroc") -> list[Spread | None]:
    """Per row of Table 5: mean over categories for each seed, then over seeds; None without any."""
    spreads = []
    for row in range(len(TABLE5)):
        by_seed: dict[int, list[float]] = {}
        for result in results:
            if result.row == row:
                by_seed.setdefault(result.seed, []).append(getattr(result, of))
        means = [float(np.mean(values)) for values in by_seed.values()]
        spreads.append(Spread.of(means) if means else None)
    return spreads


def ablation_table(ablation: Ablation) -> str:
    """Table 5 with the paper's numbers beside ours, then every category."""
    return f"{_table_5(ablation)}\n\n{_by_category(ablation)}"


def _table_5(ablation: Ablation) -> str:
    chosen = ablation_spreads(ablation.results)
    of_mean = ablation_spreads(ablation.results, "image_auroc_of_mean")
    rows = [
        (row_name(row), _text(chosen[i]), _text(of_mean[i]), _papers(row, ablation.layout))
        for i, row in enumerate(TABLE5)
    ]
    data = "DAGM 2007" if ablation.layout == _DAGM else "MVTec AD"
    header = ("row of Table 5", "image AUROC", "with the mean of the map", f"paper, {data}, %")
    return table(rows, header)


def _papers(row: AblationRow, layout: str) -> str | None:
    """The paper's number of a row: on DAGM it has only that of the detector of its Table 3."""
    if layout != _DAGM:
        return f"{row.image_auroc:.1f}"
    if row.residual_blocks != _BLOCKS_OF_TABLES_1_TO_4:
        return None
    return f"{np.mean([category.image_auroc for category in DAGM.values()]):.1f}"


def _by_category(ablation: Ablation) -> str:
    categories = sorted({result.category for result in ablation.results})
    rows = [
        (
            row_name(row),
            *(_text(_category_spread(ablation.results, i, category)) for category in categories),
            _text(spread),
        )
        for i, (row, spread) in enumerate(
            zip(TABLE5, ablation_spreads(ablation.results), strict=True)
        )
    ]
    papers = papers_by_category(ablation.layout, categories)
    if papers:
        name = f"paper (n = {_BLOCKS_OF_TABLES_1_TO_4})"
        mean = f"{np.mean(list(papers.values())):.4f}" if len(papers) == len(categories) else None
        known = (f"{papers[c]:.4f}" if c in papers else None for c in categories)
        rows.append((name, *known, mean))
    return table(rows, ("row of Table 5", *categories, "mean"))


def papers_by_category(layout: str, categories: Sequence[str]) -> dict[str, float]:
    """The paper's image AUROC (0 to 1) of those categories of a layout that it has.

    Args:
        layout: of the data.
        categories: to look up.
    """
    found = {category: published(layout, category) for category in categories}
    return {name: known.image_auroc / 100 for name, known in found.items() if known}


def _category_spread(results: Sequence[RowResult], row: int, category: str) -> Spread | None:
    values = [r.image_auroc for r in results if r.row == row and r.category == category]
    return Spread.of(values) if values else None


def _text(spread: Spread | None) -> str | None:
    return None if spread is None else str(spread)


def ablation_json(ablation: Ablation) -> Mapping[str, Any]:
    """Plain values for JSON; ``image_auroc`` of a row is the paper's on MVTec AD, in percent."""
    categories = sorted({result.category for result in ablation.results})
    return {
        "benchmark": "ablation",
        "layout": ablation.layout,
        "rows": [
            {
                **asdict(row),
                "name": row_name(row),
                "measured": None if spread is None else asdict(spread),
            }
            for row, spread in zip(TABLE5, ablation_spreads(ablation.results), strict=True)
        ],
        "paper_by_category": papers_by_category(ablation.layout, categories),
        "results": [asdict(result) for result in ablation.results],
        "failures": [asdict(failure) for failure in ablation.failures],
        "from_earlier_run": ablation.earlier,
    }
