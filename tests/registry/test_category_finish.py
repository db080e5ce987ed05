"""A finished detector is forgotten only where it cannot be used; a store's trouble is no reason."""

import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from ray.train import Checkpoint

from nfbmr.config import load_config
from nfbmr.errors import ForeignVersionError, StallError
from nfbmr.progress import Progress
from nfbmr.registry import CHAMPION, Registry
from nfbmr.registry.promotions import SETTLING_S
from nfbmr.train.category_finish import finish, fit_of
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.fit import EpochLosses
from nfbmr.train.night import Night, open_night
from nfbmr.train.ray_fit import Cause, Failed, Fitted, cause_of
from nfbmr.train.registration import register_finished
from tests.registry.finished_fit import finished_fit, make_detector

QUIET = Progress(quiet=True)


@pytest.fixture
def task() -> CategoryTask:
    config = load_config(None, (), "small")
    config = replace(config, run=replace(config.run, registry_patience_s=0.0))
    return CategoryTask(
        "bottle", config, "/x", "key", {}, ["a"], ["a"], [], lineage={"pictures_unreadable": 0}
    )


@pytest.fixture
def night(task: CategoryTask, tmp_path: Path) -> Night:
    """A night in which the detector waits for its registration."""
    night = open_night(str(tmp_path / "nights"), "command", QUIET)
    night.note_fitted(fit_of(task, night), "run-1", str(tmp_path / "fit"))
    return night


@pytest.fixture
def fitted(tmp_path: Path) -> Fitted:
    fit = finished_fit(tmp_path / "fit")
    return Fitted("bottle", Checkpoint(str(fit.folder)), fit.report)


def test_what_can_be_kept_nowhere_waits_for_the_same_command(
    task: CategoryTask, night: Night, fitted: Fitted, tmp_path: Path
) -> None:
    """The registry is away, and the disk for finished detectors refuses."""
    (tmp_path / "file").write_text("no folder")
    away = Registry("http://127.0.0.1:9")
    result, is_open = finish(fitted, task, night, away, str(tmp_path / "file" / "below"))
    assert (result.outcome, is_open) == ("failed", True)
    assert night.fitted(fit_of(task, night)) is not None


def test_a_damaged_detector_is_forgotten(
    task: CategoryTask, night: Night, fitted: Fitted, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "fit" / "detector.json").write_text("{")
    result, is_open = finish(fitted, task, night, registry, str(tmp_path / "kept"))
    assert (result.outcome, is_open) == ("failed", True)
    assert "detector" in result.decision
    assert night.fitted(fit_of(task, night)) is None


def test_a_registered_one_has_the_numbers_of_its_decision(
    task: CategoryTask, night: Night, fitted: Fitted, registry: Registry, tmp_path: Path
) -> None:
    result, is_open = finish(fitted, task, night, registry, str(tmp_path / "kept"))
    assert (result.outcome, result.promoted, is_open) == ("registered", True, False)
    assert isinstance(result.gate["synthetic_auroc"], float)
    run = registry.client.get_run(registry.resolve("bottle").run_id)
    assert run.data.metrics["gate.synthetic_auroc"] == result.gate["synthetic_auroc"]
    assert night.result(fit_of(task, night)) == result.as_dict()


def test_a_failed_fit_says_how_long_it_ran_and_how_far_it_came(
    task: CategoryTask, night: Night, tmp_path: Path
) -> None:
    last = (
        EpochLosses("flow", 4, 4, {"flow_loss": 1.5}),
        EpochLosses("mapper", 2, 4, {"source_loss": 0.25, "target_loss": 0.5}),
    )
    failed = Failed("bottle", "it diverged", Cause.USER, 7200.0, last)
    unused = Registry("http://127.0.0.1:9")
    result, is_open = finish(failed, task, night, unused, str(tmp_path / "kept"))
    assert (result.outcome, result.decision, is_open) == ("failed", "it diverged", False)
    assert (result.seconds, result.flow_loss, result.mapper_loss) == (7200.0, 1.5, 0.75)


def test_a_version_that_somebody_rolled_back_is_not_called_champion(
    registry: Registry, tmp_path: Path
) -> None:
    """Found in review: a driver that was killed after its promotion, and started again."""
    first, second = (finished_fit(tmp_path / str(night), night=night) for night in (1, 2))
    register_finished(first, registry, 0)
    version, decision = register_finished(second, registry, 0)
    assert (version.version, decision.promote) == ("2", True)
    again, decision = register_finished(second, registry, 0)
    assert (again.version, decision.promote) == ("2", True)
    registry.rollback("bottle")
    again, decision = register_finished(second, registry, 0)
    assert (again.version, decision.promote, decision.against) == ("2", False, "1")
    assert "until somebody promoted another version" in decision.reason


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("CUDA error: out of memory"), Cause.MEMORY),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Cause.MEMORY),
        (MemoryError(), Cause.MEMORY),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Cause.PROGRAM),
        (aiohttp.ClientPayloadError("cut"), Cause.LOST),
        (OSError(5, "gone"), Cause.LOST),
        (StallError("No picture was finished."), Cause.LOST),
    ],
)
def test_what_an_error_of_a_worker_means(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause


def spoil(registry: Registry, how: str, elsewhere: Path) -> str:
    """Make the champion one that cannot be loaded; returns its version."""
    champion = registry.resolve("bottle")
    tensors = Path(champion.source.removeprefix("file://")) / "detector.safetensors"
    if how == "gone":
        tensors.unlink()
    if how == "damaged":
        tensors.write_bytes(b"damaged")
    if how != "foreign":
        return champion.version
    make_detector().save(elsewhere)
    made = registry.client.create_model_version("nfbmr-bottle", str(elsewhere), None)
    registry.client.set_registered_model_alias("nfbmr-bottle", CHAMPION, made.version)
    return str(made.version)


@pytest.mark.parametrize("how", ["gone", "damaged", "foreign"])
def test_a_champion_that_cannot_be_loaded_counts_as_none(
    how: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every night would add a version that is never judged, while nobody can score."""
    register_finished(finished_fit(tmp_path / "1"), registry, 0)
    version = spoil(registry, how, tmp_path / "elsewhere")
    later = time.time() + SETTLING_S + 1
    monkeypatch.setattr("time.time", lambda: later)
    good, decision = register_finished(finished_fit(tmp_path / "3", night=3), registry, 0)
    assert (decision.promote, decision.against) == (True, version)
    said = {"gone": "is not at", "damaged": "cannot be loaded into", "foreign": "not registered by"}
    assert f"champion {version} cannot be loaded and so counts as none" in decision.reason
    assert said[how] in decision.reason
    assert registry.load("bottle").category == "bottle"
    assert registry.resolve("bottle").version == good.version
    again, decision = register_finished(finished_fit(tmp_path / "3", night=3), registry, 0)
    assert (again.version, decision.promote) == (good.version, True)


def test_a_foreign_version_that_was_rolled_back_stands_in_no_way(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_finished(finished_fit(tmp_path / "1"), registry, 0)
    spoil(registry, "foreign", tmp_path / "elsewhere")
    later = time.time() + SETTLING_S + 1
    monkeypatch.setattr("time.time", lambda: later)
    with pytest.raises(ForeignVersionError):
        registry.champion("bottle")
    assert registry.rollback("bottle").champion == "1"
    _, decision = register_finished(finished_fit(tmp_path / "3", night=3), registry, 0)
    assert decision.against == "1"
