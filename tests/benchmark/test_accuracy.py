"""Verdicts of the accuracy benchmark; on the real pictures, at reduced cost, they hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import jobs.benchmark
from nfbmr.benchmark.accuracy import CategoryAccuracy
from nfbmr.data.procedural import FactorySettings, generate_factory
from nfbmr.metrics import rate
from nfbmr.model.scoring import AGGREGATES
from tests.conftest import SHARED

RESULT = CategoryAccuracy(
    category="tile",
    seed=0,
    pictures=583,
    unreadable=0,
    image_auroc=0.97,
    aggregate="mean",
    synthetic_aurocs={"mean": 0.9, "max": 0.94},
    false_alarms=rate(9, 191),
    requested_rate=0.05,
    scoring_map="eq14",
    variants={"flow": {"mean": 0.5, "max": 1.0}, "eq14": {"mean": 0.97, "max": 0.975}},
    fit_s=1.0,
)


def test_the_choice_is_compared_with_the_best_aggregate_of_the_map_that_scores() -> None:
    assert RESULT.best_aggregate == "max"
    assert RESULT.lost_points == pytest.approx(0.5)
    assert "(allowed: 1): yes" in RESULT.verdicts()[0]
    assert "mean 0.900, max 0.940" in RESULT.verdicts()[0]
    worse = replace(RESULT, variants={"eq14": {"mean": 0.95, "max": 0.975}})
    assert "(allowed: 1): no" in worse.verdicts()[0]


@pytest.mark.parametrize(("alarms", "holds"), [(0, False), (4, True), (16, True), (20, False)])
def test_false_alarms_are_judged_by_their_binomial_interval(alarms: int, holds: bool) -> None:
    result = replace(RESULT, false_alarms=rate(alarms, 191))
    assert result.false_alarms_as_requested is holds
    assert f"{alarms} false alarms on 191" in result.verdicts()[1]


@pytest.mark.integration
@pytest.mark.slow
def test_the_command_ends_with_every_variant_in_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FactorySettings(categories=1, train=60, test_normal=12, test_defective=12, archive=1)
    data = generate_factory(tmp_path / "factory", settings).root
    arguments = ["accuracy", "--data", data, "--layout", "mvtec", "--seeds", "0"]
    arguments += ["--preset", "small", "--image-size", "128", "--work-dir", str(tmp_path / "work")]
    for setting in ("fit.min_steps=20", "fit.flow_epochs=2", "fit.mapper_epochs=2"):
        arguments += ["--set", setting]
    jobs.benchmark.main([*arguments, "--set", "calibration.false_alarm_rate=0.1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.5 < result["image_auroc"] <= 1
    assert result["seconds"] > 0
    (measured,) = result["categories"]
    assert set(measured["variants"]) == {"flow", "source", "target", "eq14"}
    for aurocs in measured["variants"].values():
        assert set(aurocs) == set(AGGREGATES)
        assert all(0 <= auroc <= 1 for auroc in aurocs.values())
    assert measured["image_auroc"] == measured["variants"]["eq14"][measured["aggregate"]]


@pytest.mark.slow
def test_on_magnetic_tiles_the_automatic_choices_hold(
    real_weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A third of the default's epochs; about three minutes on two cores."""
    data = SHARED / "data" / "mtd"
    if not data.exists():
        pytest.skip("the magnetic tiles do not lie beside the project")
    arguments = ["accuracy", "--layout", "mtd", "--data", str(data), "--weights", real_weights]
    arguments += ["--seeds", "0", "--work-dir", str(tmp_path)]
    for setting in ("fit.flow_epochs=10", "fit.mapper_epochs=10"):
        arguments += ["--set", setting]
    assert jobs.benchmark.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["image_auroc"] >= 0.95
    (category,) = result["categories"]
    assert category["lost_points"] <= 1.0
    assert category["false_alarms_as_requested"], category["false_alarms"]
