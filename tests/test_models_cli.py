"""``nfbmr models``: every action prints what the registry says, as text and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from nfbmr import cli
from nfbmr.registry import Registry, default_uri
from nfbmr.train.registration import register_finished
from tests.registry.finished_fit import finished_fit


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights of ``bottle``: the second is worse and stays challenger."""
    folder = tmp_path_factory.mktemp("models")
    registry = Registry(default_uri(str(folder)))
    for night, separation in ((1, 3.0), (2, 1.0)):
        fit = finished_fit(folder / f"{night}", night=night, separation=separation)
        register_finished(fit, registry, 0)
    return folder


class Command:
    def __init__(self, work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.work_dir, self.capsys = work_dir, capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert cli.main(["models", *arguments, "--work-dir", str(self.work_dir)]) == code
        captured = self.capsys.readouterr()
        return captured.err if code else captured.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def models(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(work_dir, capsys)


def test_list(models: Command) -> None:
    rows = models.json("list")
    assert [(row["version"], row["aliases"]) for row in rows] == [
        ("2", ["challenger"]),
        ("1", ["champion"]),
    ]
    text = models("list", "bottle")
    assert "champion" in text
    assert "refused" in text
    assert "Did you mean 'bottle'?" in models("list", "botle", code=6)


def test_show_has_everything_that_a_version_carries(models: Command) -> None:
    values = models.json("show", "bottle")
    assert values["version"] == "1"
    assert values["decision"]["promote"] is True
    assert values["calibration_pictures"] == 40
    assert values["metrics"]["calibration_size"] == 40
    assert values["lineage"]["settings"]["fit"]["seed"] == 0
    assert values["backbone"]["weights_hash"] == values["tags"]["nfbmr.weights_hash"]
    counts = ("pictures_fitted", "pictures_held_out", "calibration_size")
    for tag in ("data_fingerprint", "settings_fingerprint", "code_version", "version", *counts):
        assert values["tags"][f"nfbmr.{tag}"]
    assert values["tags"]["nfbmr.gate"] == "passed"
    assert "threshold" in models("show", "bottle", "challenger")


def test_diff_shows_data_gate_and_nothing_that_is_the_same(models: Command) -> None:
    values = models.json("diff", "bottle")
    assert values["versions"] == ["1", "2"]
    different = values["different"]
    assert different["data.fitted_at"] == ["2026-11-01T02:00:00Z", "2026-11-02T02:00:00Z"]
    assert "data.data_fingerprint" in different
    assert different["gate.champion_synthetic_auroc"][0] is None
    assert not [name for name in different if name.startswith("settings.")]
    assert "data.fitted_at" in models("diff", "bottle", "1", "2")


def test_diff_of_one_version_is_with_the_champion_never_with_itself(models: Command) -> None:
    assert models.json("diff", "bottle", "challenger")["versions"] == ["2", "1"]
    assert models.json("diff", "bottle", "2")["versions"] == ["2", "1"]
    assert models.json("diff", "bottle", "champion")["versions"] == ["1", "2"]
    assert models.json("diff", "bottle", "1")["versions"] == ["1", "2"]


def test_diff_of_two_names_of_one_version_says_so(models: Command) -> None:
    text = "Both are version 1 of 'bottle': nothing to compare.\n"
    assert models("diff", "bottle", "1", "1") == text
    assert models("diff", "bottle", "champion", "1") == text


def test_promote_and_rollback_by_hand(models: Command) -> None:
    done = models.json("promote", "bottle", "challenger", "--reason", "looked at it")
    assert (done["champion"], done["previous"], done["kind"]) == ("2", "1", "hand")
    assert done["reason"] == "looked at it"
    text = models("rollback", "bottle")
    assert text == "Version 1 of 'bottle' is champion, version 2 is previous.\n"
    assert models.json("diff", "bottle")["versions"] == ["1", "2"], "no challenger is left"
    assert models.json("rollback", "bottle")["champion"] == "2"
    models("promote", "bottle", "1")
    assert "no version or alias '9'" in models("promote", "bottle", "9", code=6)


@pytest.mark.parametrize(
    "action", ["list", "show", "diff", "promote", "rollback", "register", "score"]
)
def test_every_action_has_help_with_an_example(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", action, "--help"])
    assert caught.value.code == 0
    assert f"example:\n  nfbmr models {action}" in capsys.readouterr().out
