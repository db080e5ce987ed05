"""Table 5's averages, what is missing in them, and the paper's numbers of the same data."""

import json

import pytest

from nfbmr.benchmark.ablation import Ablation, FailedFit
from nfbmr.benchmark.ablation_table import ablation_json, ablation_table
from nfbmr.benchmark.ablation_task import RowResult
from nfbmr.published import DAGM, MVTEC, TABLE5


def measured(layout: str, values: dict[tuple[int, str], float]) -> Ablation:
    results = [
        RowResult(category, seed, row, "mean", value, value)
        for (seed, category), value in values.items()
        for row in range(len(TABLE5))
    ]
    return Ablation(layout, tuple(results), (), 0)


def line(text: str, start: str, which: int = 0) -> str:
    return [line for line in text.splitlines() if line.startswith(start)][which]


def test_the_table_averages_categories_before_seeds() -> None:
    values = {(0, "a"): 0.9, (0, "b"): 0.7, (1, "a"): 1.0, (1, "b"): 1.0}
    text = ablation_table(measured("mvtec", values))
    assert "0.9000 ± 0.1414" in line(text, "flow + BMR, n = 2")
    assert "98.7" in line(text, "flow + BMR, n = 2")
    assert line(text, "flow + BMR, n = 2", 1).split()[-3:] == ["0.9000", "±", "0.1414"]


def test_dagm_stands_beside_what_the_paper_has_of_dagm() -> None:
    text = ablation_table(measured("dagm", {(0, name.capitalize()): 0.9 for name in DAGM}))
    assert "paper, DAGM 2007, %" in text
    assert "MVTec" not in text
    assert line(text, "flow + BMR, n = 2").endswith("98.7")
    assert line(text, "flow only").endswith("-")
    paper = line(text, "paper (n = 2)").split()[4:]
    assert paper[0] == "0.9570"
    assert paper[-1] == "0.9872", "the average of the ten"
    assert len(paper) == 11


def test_mvtec_has_the_papers_numbers_by_category() -> None:
    text = ablation_table(measured("mvtec", {(0, "grid"): 0.9, (0, "pill"): 0.9}))
    assert "paper, MVTec AD, %" in text
    assert line(text, "paper (n = 2)").split()[4:] == ["0.9850", "0.9840", "0.9845"]


def test_a_mean_of_other_categories_is_not_the_papers() -> None:
    text = ablation_table(measured("mvtec", {(0, "grid"): 0.9, (0, "own"): 0.9}))
    assert line(text, "paper (n = 2)").split()[4:] == ["0.9850", "-", "-"]


@pytest.mark.parametrize("layout", ["mtd", "folder"])
def test_what_the_paper_does_not_have_stands_beside_mvtec_and_says_so(layout: str) -> None:
    text = ablation_table(measured(layout, {(0, "grid"): 0.9}))
    assert "paper, MVTec AD, %" in text
    assert line(text, "flow only").endswith("94.2")
    assert "paper (n = 2)" not in text


def test_without_any_row_the_tables_are_empty_and_the_object_says_why() -> None:
    ablation = Ablation("mvtec", (), (FailedFit("grid", 0, "it diverged"),), 0)
    assert line(ablation_table(ablation), "flow only").split()[2:] == ["-", "-", "94.2"]
    values = json.loads(json.dumps(ablation_json(ablation)))
    assert [row["measured"] for row in values["rows"]] == [None] * len(TABLE5)
    assert values["failures"] == [{"category": "grid", "seed": 0, "error": "it diverged"}]


def test_the_object_has_every_category_beside_the_papers() -> None:
    values = ablation_json(measured("mvtec", {(0, name): 0.9 for name in MVTEC}))
    assert values["paper_by_category"]["metal_nut"] == pytest.approx(0.969)
    assert len(values["results"]) == len(MVTEC) * len(TABLE5)
