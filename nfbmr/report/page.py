"""One self-contained HTML page about one scoring run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from nfbmr import __version__, storage
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_mask, decode_rgb
from nfbmr.data.sample import Sample
from nfbmr.drawing import heatmap, thumbnail
from nfbmr.errors import DataError, DecodeError, OutputError
from nfbmr.evaluate import CategoryEvaluation, Evaluation, describe_rate, map_of
from nfbmr.output_place import check_place
from nfbmr.report import pictures, plots
from nfbmr.score.dataset import rows_of
from nfbmr.score.schema import OK

GENERATOR = '<meta name="generator" content="nfbmr">'
"""Says of a file that it is a report of ours."""

_HEAD_BYTES = 4096
SHOWN_PER_CATEGORY = 6
SHOWN_ERRORS = 100

Row = Mapping[str, Any]
ReadPicture = Callable[[Row], bytes]
LossCurves = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Shown:
    """One picture on the page: data URIs, or why there are none."""

    row: Row
    original: str | None
    heat: str | None
    mask: str | None
    label: str | None
    error: str | None = None


@dataclass(frozen=True)
class Section:
    """What the page says of one category."""

    name: str
    pictures: int
    errors: int
    anomalous: int
    threshold: float | None
    calibration_size: int | None
    evaluation: CategoryEvaluation | None
    histogram: Markup
    roc: Markup
    losses: Markup
    heat_low: float
    heat_high: float
    shown: tuple[Shown, ...]


def check_report(uri: str) -> None:
    """Refuse to write a report over a file that is none.

    Raises:
        OutputError: it is something else.
    """
    check_place(uri, is_file=True)
    data = storage.read(storage.absolute_uri(uri))
    if data is not None and GENERATOR.encode() not in data[:_HEAD_BYTES]:
        raise OutputError(
            f"{uri} is there already and is no report of nfbmr: choose another --output, or remove "
            "it."
        )


def write_report(
    uri: str,
    *,
    title: str,
    scores: pa.Table,
    read_picture: ReadPicture,
    run_info: Mapping[str, str],
    evaluation: Evaluation | None = None,
    samples: Sequence[Sample] = (),
    losses: LossCurves | None = None,
) -> str:
    """Write the page.

    Only the pictures that are shown are read. Everything is inside the file: no script, no
    request; a content security policy says so.

    Args:
        uri: of the HTML file.
        title: of the page.
        scores: rows of a finished scoring run.
        read_picture: gives the encoded bytes of a row's picture.
        run_info: what else is to be known, by name.
        evaluation: metrics, where labels are known.
        samples: labels and masks.
        losses: per category, per loss, a value for each epoch.

    Returns:
        The URI.
    """
    rows = rows_of(scores)
    # Metrics are of the test pictures; so are the curve and the histogram beside them.
    labels = {sample.uri: sample for sample in samples if sample.split == "test"}
    by_category: dict[str, list[Row]] = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row)
    evaluated = {c.category: c for c in evaluation.categories} if evaluation else {}
    sections = [
        _section(
            name, members, labels, evaluated.get(name), (losses or {}).get(name, {}), read_picture
        )
        for name, members in sorted(by_category.items())
    ]
    failed = [row for row in rows if row["status"] != OK]
    html = _template().render(
        title=title,
        generator=GENERATOR,
        sections=sections,
        evaluation=evaluation,
        means=evaluation.mean() if evaluation else {},
        failed=failed[:SHOWN_ERRORS],
        failed_count=len(failed),
        rows=len(rows),
        anomalous=sum(bool(row["is_anomalous"]) for row in rows),
        run_info={"nfbmr": __version__, **run_info},
        legend=pictures.legend_uri(),
        describe_rate=describe_rate,
    )
    storage.write_atomically(storage.absolute_uri(uri), html.encode())
    return uri


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("nfbmr.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda v: "-" if v is None else f"{v:.4f}"
    environment.filters["short"] = lambda v: "-" if v is None else f"{v:.4g}"
    return environment.get_template("report.html.jinja")


def _section(
    name: str,
    rows: Sequence[Row],
    labels: Mapping[str, Sample],
    evaluation: CategoryEvaluation | None,
    losses: Mapping[str, Sequence[float]],
    read_picture: ReadPicture,
) -> Section:
    scored = sorted((r for r in rows if r["status"] == OK), key=lambda r: -r["score"])
    threshold = scored[0]["threshold"] if scored else None
    shown_rows = scored[:SHOWN_PER_CATEGORY]
    low, high = _heat_range(shown_rows, scored)
    return Section(
        name=name or "(no category)",
        pictures=len(rows),
        errors=len(rows) - len(scored),
        anomalous=sum(row["is_anomalous"] for row in scored),
        threshold=threshold,
        calibration_size=scored[0]["calibration_size"] if scored else None,
        evaluation=evaluation,
        histogram=Markup(plots.histogram(_groups(scored, labels), threshold)),
        roc=Markup(_roc(scored, labels, evaluation)),
        losses=Markup(plots.losses(losses) if losses else ""),
        heat_low=low,
        heat_high=high,
        shown=tuple(
            _shown(row, labels.get(row["image_uri"]), low, high, read_picture) for row in shown_rows
        ),
    )


def _heat_range(shown: Sequence[Row], scored: Sequence[Row]) -> tuple[float, float]:
    """One scale for a category: from what is usual to the hottest cell that is shown."""
    if not shown:
        return 0.0, 1.0
    typical = scored[len(scored) // 2]
    low = float(np.median(map_of(typical)))
    hottest = [float(map_of(row).max()) for row in shown]
    return low, max(float(np.median(hottest)), low + 1e-9)


def _groups(scored: Sequence[Row], labels: Mapping[str, Sample]) -> dict[str, list[float]]:
    """Scores by label where labels are known, else all together."""
    groups: dict[str, list[float]] = {"normal": [], "defective": [], "all": []}
    for row in scored:
        sample = labels.get(row["image_uri"])
        name = "all" if sample is None else "defective" if sample.is_defective else "normal"
        groups[name].append(row["score"])
    return {name: values for name, values in groups.items() if values}


def _roc(
    scored: Sequence[Row], labels: Mapping[str, Sample], evaluation: CategoryEvaluation | None
) -> str:
    if evaluation is None or evaluation.image_auroc is None:
        return ""
    known = [row for row in scored if row["image_uri"] in labels]
    truth = [labels[row["image_uri"]].is_defective for row in known]
    false_rate, true_rate, _ = roc_curve(truth, [row["score"] for row in known])
    return plots.roc(false_rate, true_rate, evaluation.image_auroc)


def _shown(
    row: Row, sample: Sample | None, low: float, high: float, read_picture: ReadPicture
) -> Shown:
    label = sample.defect_type if sample else None
    try:
        small_HWC = thumbnail(decode_rgb(read_picture(row)))
        mask = _mask_picture(small_HWC, sample)
    except (DataError, DecodeError) as error:
        return Shown(row, None, None, None, label, str(error))
    heat = pictures.data_uri(heatmap(small_HWC, map_of(row), low, high))
    return Shown(row, pictures.data_uri(small_HWC), heat, mask, label)


def _mask_picture(small_HWC: NDArray[np.uint8], sample: Sample | None) -> str | None:
    if sample is None or sample.mask_uri is None:
        return None
    mask_HW = decode_mask(read_bytes(sample.mask_uri))
    return pictures.data_uri(pictures.outline(small_HWC, mask_HW))
