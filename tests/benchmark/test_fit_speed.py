"""The paper's loop and the cached fit compute the same; the benchmark says so and compares them."""

import json
from pathlib import Path

import pytest

import jobs.benchmark
from nfbmr.benchmark.fit_speed import paper_fit
from nfbmr.benchmark.fit_ways import PAPER_EPOCHS, Way
from nfbmr.config import load_config
from tests.conftest import Trained


def test_the_loop_is_timed_with_the_papers_settings() -> None:
    paper = load_config(None, (), "paper").fit
    assert paper.flow_epochs == paper.mapper_epochs == PAPER_EPOCHS
    timed = paper_fit(load_config(None, ["fit.seed=3"]).fit, 2)
    assert (timed.flow_epochs, timed.mapper_epochs, timed.seed) == (2, 2, 3)
    assert (timed.batch_size, timed.schedule, timed.precision) == (8, "constant", "float32")
    assert timed.flow_learning_rate == paper.flow_learning_rate


def test_seconds_at_more_epochs_are_extrapolated_from_epochs_alone() -> None:
    way = Way("x", 2, 2, 10.0, 1.0, 2.0, 0.9, [], None)
    assert way.seconds_at(2) == pytest.approx(10.0)
    assert way.seconds_at(300) == pytest.approx(4.0 + 300 * 3.0)


def test_the_same_epochs_give_the_same_losses_and_auroc_with_and_without_the_cache(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    category = trained.results[0].category
    arguments = ["fit", "--data", trained.factory.root, "--layout", "mvtec", "--epochs", "2"]
    arguments += ["--categories", category, "--preset", "small", "--image-size", "128"]
    arguments += ["--work-dir", str(tmp_path)]
    settings = ("fit.min_steps=1", "fit.flow_epochs=2", "fit.mapper_epochs=2")
    for setting in (*settings, "calibration.false_alarm_rate=0.1"):
        arguments += ["--set", setting]
    assert jobs.benchmark.main(arguments) == 0
    output = capsys.readouterr().out
    result = json.loads(output.splitlines()[-1])
    straight, same = result["straight"], result["same"]
    assert len(straight["losses"]) == len(same["losses"]) == 4
    # Cached features are rounded to half precision; nothing else differs.
    assert same["losses"] == pytest.approx(straight["losses"], rel=2e-3, abs=2e-3)
    assert same["image_auroc"] == pytest.approx(straight["image_auroc"], abs=0.02)
    assert result["straight_extrapolated_s"] > result["default"]["seconds"]
    assert result["extrapolated_to_epochs"] == PAPER_EPOCHS
    assert "(extrapolated)" in output


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--epochs", "1"], "at least 2"), (["--categories", "a", "b"], "a fit is of one")],
)
def test_wrong_arguments_are_sentences(
    more: list[str], words: str, capsys: pytest.CaptureFixture[str], trained: Trained
) -> None:
    assert jobs.benchmark.main(["fit", "--data", trained.factory.root, *more]) != 0
    assert words in capsys.readouterr().err
