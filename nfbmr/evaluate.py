"""How good a scoring run is, where labels are known: per category, and averaged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nfbmr import metrics
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_mask
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, DecodeError, OutputError
from nfbmr.metrics import AtThreshold, PixelMetrics, Rate
from nfbmr.progress import table
from nfbmr.published import Published, published
from nfbmr.score.dataset import rows_of
from nfbmr.score.schema import OK

Mean = dict[str, float | None]
AVERAGED = ("image_auroc", "average_precision", "pixel_auroc", "aupro")
_AT_THRESHOLD = ("precision", "recall", "f1")


@dataclass(frozen=True)
class CategoryEvaluation:
    """The metrics of one category; those that cannot be computed are None.

    Attributes:
        category: the product type.
        pictures: labelled test pictures.
        defective: how many of them are.
        errors: how many have no score.
        image_auroc: see ``metrics``.
        average_precision: see ``metrics``.
        oracle: at the best-F1 threshold, which looks at the labels.
        calibrated: at the detector's own threshold, which does not.
        false_alarms: normal pictures above the calibrated threshold.
        pixel_auroc: where masks exist.
        aupro: to 30 % false positives, where masks exist.
        model_versions: that scored it.
        published: the paper's numbers, percent.
    """

    category: str
    pictures: int
    defective: int
    errors: int
    image_auroc: float | None
    average_precision: float | None
    oracle: AtThreshold | None
    calibrated: AtThreshold | None
    false_alarms: Rate | None
    pixel_auroc: float | None
    aupro: float | None
    model_versions: tuple[str, ...]
    published: Published | None = None


@dataclass(frozen=True)
class Evaluation:
    """All categories.

    Attributes:
        categories: in the order of their names.
        unlabelled: rows of scores that no label belongs to.
    """

    categories: tuple[CategoryEvaluation, ...]
    unlabelled: int

    def mean(self) -> Mean:
        """Macro averages over the categories that have the metric."""
        means: Mean = {}
        for name in AVERAGED:
            values = [getattr(c, name) for c in self.categories]
            means[name] = _mean(values)
        for where, name in itertools.product(("oracle", "calibrated"), _AT_THRESHOLD):
            found = [getattr(c, where) for c in self.categories]
            means[f"{where}_{name}"] = _mean([getattr(one, name) for one in found if one])
        return means

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "categories": [asdict(category) for category in self.categories],
            "mean": self.mean(),
            "unlabelled": self.unlabelled,
        }

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.as_dict(), indent=1)

    def _rows(self) -> list[list[object]]:
        rows = [_row(category) for category in self.categories]
        means = self.mean()
        rows.append(
            [
                "mean",
                "",
                "",
                "",
                means["image_auroc"],
                means["average_precision"],
                *(means[f"oracle_{name}"] for name in _AT_THRESHOLD),
                *(means[f"calibrated_{name}"] for name in _AT_THRESHOLD),
                None,
                means["pixel_auroc"],
                means["aupro"],
                None,
                *self._published_means(),
            ]
        )
        return rows

    def _published_means(self) -> list[float | None]:
        """The paper's averages, where it has all of these categories: else they are of others."""
        known = [category.published for category in self.categories if category.published]
        if not known or len(known) < len(self.categories):
            return [None] * 4
        return [round(float(value), 2) for value in np.mean([astuple(one) for one in known], 0)]

    def to_table(self) -> str:
        """Aligned text."""
        return table(*_without_empty_columns(self._rows(), HEADER))

    def to_markdown(self) -> str:
        """A Markdown table."""
        rows, header = _without_empty_columns(self._rows(), HEADER)
        lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for row in rows:
            cells = [
                "" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in row
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


HEADER = (
    "category",
    "pictures",
    "defective",
    "errors",
    "AUROC",
    "AP",
    "precision (oracle)",
    "recall",
    "F1",
    "precision (calibrated)",
    "recall",
    "F1",
    "false alarms",
    "pixel AUROC",
    "AUPRO",
    "model version",
    "paper AUROC %",
    "precision %",
    "recall %",
    "F1 %",
)
"""What stands behind "oracle", "calibrated" and "paper" belongs to it, up to the next of them."""


def _row(c: CategoryEvaluation) -> list[object]:
    return [
        c.category,
        c.pictures,
        c.defective,
        c.errors,
        c.image_auroc,
        c.average_precision,
        *_at_threshold(c.oracle),
        *_at_threshold(c.calibrated),
        describe_rate(c.false_alarms),
        c.pixel_auroc,
        c.aupro,
        ", ".join(c.model_versions),
        *(astuple(c.published) if c.published else [None] * 4),
    ]


def _at_threshold(found: AtThreshold | None) -> list[float | None]:
    return [getattr(found, name) if found else None for name in _AT_THRESHOLD]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def describe_rate(rate: Rate | None) -> str | None:
    """``3/60 (1-14 %)``: count, number and 95 % interval."""
    if rate is None:
        return None
    return f"{rate.count}/{rate.n} ({rate.low:.0%}-{rate.high:.0%})"


def _without_empty_columns(
    rows: Sequence[Sequence[object]], header: Sequence[str]
) -> tuple[list[list[object]], list[str]]:
    keep = [i for i in range(len(header)) if any(row[i] is not None for row in rows)]
    return [[row[i] for i in keep] for row in rows], [header[i] for i in keep]


def evaluate(
    scores: pa.Table,
    samples: Iterable[Sample],
    layout: str = "",
    read: Callable[[str], bytes] = read_bytes,
) -> Evaluation:
    """Compare scores with labels.

    Args:
        scores: rows of a finished scoring run.
        samples: labelled pictures; those of the ``test`` split count.
        layout: whose published results stand beside ours, where the paper has them.
        read: fetches masks.

    Raises:
        OutputError: a labelled picture has no row of scores.
        DataError: a mask cannot be read.
    """
    rows = {row["image_uri"]: row for row in rows_of(scores)}
    tested = [sample for sample in samples if sample.split == "test"]
    missing = [sample.uri for sample in tested if sample.uri not in rows]
    if missing:
        raise OutputError(
            f"{len(missing)} of {len(tested)} labelled pictures have no row in the scores, first "
            f"{missing[0]}: score the same data root, under the same path."
        )
    categories = sorted({sample.category for sample in tested})
    return Evaluation(
        tuple(
            _evaluate_category(name, [s for s in tested if s.category == name], rows, layout, read)
            for name in categories
        ),
        unlabelled=len(rows) - len({sample.uri for sample in tested}),
    )


def _evaluate_category(
    name: str,
    samples: Sequence[Sample],
    rows: Mapping[str, Mapping[str, Any]],
    layout: str,
    read: Callable[[str], bytes],
) -> CategoryEvaluation:
    scored = [(s, rows[s.uri]) for s in samples if rows[s.uri]["status"] == OK]
    labels = np.array([sample.is_defective for sample, _ in scored], dtype=bool)
    values = np.array([row["score"] for _, row in scored], dtype=np.float64)
    alarms = [row["is_anomalous"] for sample, row in scored if not sample.is_defective]
    thresholds = {row["threshold"] for _, row in scored}
    pixels = _pixel_metrics(scored, read)
    calibrated = None
    if len(thresholds) == 1:
        calibrated = metrics.at_threshold(labels, values, next(iter(thresholds)))
    return CategoryEvaluation(
        category=name,
        pictures=len(samples),
        defective=sum(sample.is_defective for sample in samples),
        errors=len(samples) - len(scored),
        image_auroc=metrics.image_auroc(labels, values) if scored else None,
        average_precision=metrics.average_precision(labels, values) if scored else None,
        oracle=metrics.oracle_threshold(labels, values) if scored else None,
        calibrated=calibrated,
        false_alarms=metrics.rate(sum(alarms), len(alarms)),
        pixel_auroc=pixels.auroc() if pixels else None,
        aupro=pixels.aupro() if pixels else None,
        model_versions=tuple(sorted({row["model_version"] for _, row in scored})),
        published=published(layout, name),
    )


def _pixel_metrics(
    scored: Sequence[tuple[Sample, Mapping[str, Any]]], read: Callable[[str], bytes]
) -> PixelMetrics | None:
    """Over all pictures whose mask is known; None where the data set has no masks."""
    if not any(sample.mask_uri for sample, _ in scored):
        return None
    pixels = PixelMetrics()
    for sample, row in scored:
        if sample.is_defective and sample.mask_uri is None:
            continue
        pixels.add(map_of(row), _mask(sample, row, read))
    return pixels


def map_of(row: Mapping[str, Any]) -> NDArray[np.float32]:
    """The anomaly map of a row, (map_height, map_width)."""
    values = np.asarray(row["anomaly_map"], dtype=np.float32)
    return values.reshape(row["map_height"], row["map_width"])


def _mask(
    sample: Sample, row: Mapping[str, Any], read: Callable[[str], bytes]
) -> NDArray[np.bool_]:
    if sample.mask_uri is None:
        return np.zeros((row["image_height"], row["image_width"]), dtype=bool)
    try:
        return decode_mask(read(sample.mask_uri))
    except DecodeError as error:
        raise DataError(f"The mask {sample.mask_uri} cannot be decoded: {error}") from error
