"""An evaluation compares every labelled picture with its row of scores, or says what is missing."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, OutputError
from nfbmr.evaluate import evaluate, map_of
from nfbmr.published import DAGM, MVTEC, Published, published


def sample(uri: str, defect: str = "good", category: str = "bottle") -> Sample:
    mask = f"{uri}-mask" if defect != "good" else None
    return Sample(uri, category=category, split="test", defect_type=defect, mask_uri=mask)


def row(uri: str, score: float | None, category: str = "bottle") -> dict[str, object]:
    ok = score is not None
    map_HW = np.full((4, 4), 0.1)
    map_HW[0, 0] = score or 0.0
    return {
        "image_uri": uri,
        "category": category,
        "status": "ok" if ok else "error",
        "score": score,
        "threshold": 0.5 if ok else None,
        "is_anomalous": score > 0.5 if score is not None else None,
        "model_version": "3",
        "image_height": 16,
        "image_width": 16,
        "map_height": 4,
        "map_width": 4,
        "anomaly_map": map_HW.ravel().tolist(),
    }


def corner_mask(uri: str) -> bytes:
    assert uri.endswith("-mask")
    image = Image.new("L", (16, 16))
    image.paste(255, (0, 0, 4, 4))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


SAMPLES = [sample("a"), sample("b"), sample("c", "crack"), sample("d", "crack"), sample("e")]
ROWS = [row("a", 0.2), row("b", 0.6), row("c", 0.9), row("d", 0.8), row("e", None)]


def test_metrics_of_a_category() -> None:
    evaluation = evaluate(pa.Table.from_pylist(ROWS), SAMPLES, "mtd", corner_mask)
    (bottle,) = evaluation.categories
    assert (bottle.pictures, bottle.defective, bottle.errors) == (5, 2, 1)
    assert bottle.image_auroc == 1.0
    assert bottle.average_precision == 1.0
    assert bottle.oracle is not None
    assert bottle.oracle.f1 == 1.0
    assert bottle.calibrated is not None
    assert bottle.calibrated.precision == 2 / 3
    assert bottle.false_alarms is not None
    assert (bottle.false_alarms.count, bottle.false_alarms.n) == (1, 2)
    assert bottle.pixel_auroc is not None
    assert bottle.pixel_auroc > 0.9
    assert bottle.aupro is not None
    assert bottle.model_versions == ("3",)


def test_table_json_and_markdown_say_the_same() -> None:
    evaluation = evaluate(pa.Table.from_pylist(ROWS), SAMPLES, "mtd", corner_mask)
    values = json.loads(evaluation.to_json())
    assert values["categories"][0]["category"] == "bottle"
    assert values["mean"]["image_auroc"] == 1.0
    markdown = evaluation.to_markdown().splitlines()
    assert len({line.count("|") for line in markdown}) == 1
    for text in (evaluation.to_table(), evaluation.to_markdown()):
        assert "bottle" in text
        assert "1/2 (1%-99%)" in text
        assert "paper" not in text


def test_the_papers_numbers_stand_beside_ours_where_it_has_any() -> None:
    evaluation = evaluate(pa.Table.from_pylist(ROWS), SAMPLES, "mvtec", corner_mask)
    assert evaluation.categories[0].published == MVTEC["bottle"]
    row = next(line for line in evaluation.to_markdown().splitlines() if "bottle" in line)
    assert row.endswith("| 100 | 100 | 100 | 100 |")
    assert "paper AUROC % | precision % | recall % | F1 %" in evaluation.to_markdown()
    assert "| 100.0000 | 100.0000 | 100.0000 | 100.0000 |" in evaluation.to_markdown()
    assert published("mtd", "magnetic_tile") is None


@pytest.mark.parametrize(
    ("found", "auroc", "others"),
    [
        (MVTEC, "table1_mvtec_image_auroc", "table2_mvtec_precision_recall_f1"),
        (DAGM, "table3_dagm_image_auroc", "table4_dagm_precision_recall_f1"),
    ],
)
def test_the_papers_numbers_are_the_papers(
    found: dict[str, Published], auroc: str, others: str
) -> None:
    paper = Path(__file__).parents[2] / "shared" / "paper"
    if not paper.exists():
        pytest.skip("the paper does not lie beside the project")

    def table(name: str) -> dict[str, dict[str, str]]:
        with (paper / f"{name}.csv").open(newline="") as file:
            return {row["category"].lower().replace(" ", "_"): row for row in csv.DictReader(file)}

    rows = table(others)
    expected = {
        name: Published(
            float(row["nf_bmr"]),
            *(float(rows[name][each]) for each in ("precision", "recall", "f1")),
        )
        for name, row in table(auroc).items()
        if name in rows
    }
    assert {name: expected[name] for name in found} == found


def test_a_labelled_picture_without_a_row_is_an_error() -> None:
    with pytest.raises(OutputError, match=r"1 of 5 labelled pictures have no row.*first c"):
        evaluate(pa.Table.from_pylist([r for r in ROWS if r["image_uri"] != "c"]), SAMPLES)


def test_rows_without_labels_are_counted() -> None:
    evaluation = evaluate(pa.Table.from_pylist(ROWS), SAMPLES[:2], read=corner_mask)
    assert evaluation.unlabelled == 3


def test_normals_alone_have_false_alarms_but_no_auroc() -> None:
    evaluation = evaluate(pa.Table.from_pylist(ROWS), SAMPLES[:2])
    (bottle,) = evaluation.categories
    assert bottle.image_auroc is None
    assert bottle.pixel_auroc is None
    assert bottle.false_alarms is not None
    assert evaluation.mean()["image_auroc"] is None
    assert "mean" in evaluation.to_table()


def test_all_rows_failed_is_not_a_crash() -> None:
    rows = [row(uri, None) for uri in "abcde"]
    evaluation = evaluate(pa.Table.from_pylist(rows), SAMPLES, read=corner_mask)
    (bottle,) = evaluation.categories
    assert bottle.errors == 5
    assert bottle.image_auroc is None
    assert bottle.false_alarms is None


def test_a_broken_mask_is_named() -> None:
    with pytest.raises(DataError, match="The mask c-mask cannot be decoded"):
        evaluate(pa.Table.from_pylist(ROWS), SAMPLES, read=lambda uri: b"no picture")


def test_the_map_of_a_row_is_row_major() -> None:
    values = row("a", 0.7)
    assert map_of(values)[0, 0] == pytest.approx(0.7)
    assert map_of(values).shape == (4, 4)
