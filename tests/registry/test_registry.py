"""A real MLflow on SQLite: register, list, resolve, promote, load; errors name what there is."""

from dataclasses import replace
from pathlib import Path

import pytest

from nfbmr.errors import RegistryError
from nfbmr.model.detector import TENSORS_FILE, Detector
from nfbmr.model_version import MetricPoint, ModelVersion
from nfbmr.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, load_detector
from tests.registry.finished_fit import make_detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(night=1)


def register(
    registry: Registry, detector: Detector, folder: Path, night: int = 1, category: str = "bottle"
) -> ModelVersion:
    replace(detector, lineage={"night": night}).save(folder)
    return registry.register(
        category,
        folder,
        params={"fit.seed": 0},
        metrics={"threshold": 1.5},
        curves=[MetricPoint("flow_loss", 1.0 / step, step) for step in range(1, 5)],
        tags={"nfbmr.aggregate": "mean"},
    )


def test_registered_is_listed_resolved_and_loaded(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    registry.prepare()
    version = register(registry, detector, tmp_path / "files")
    assert (version.category, version.name, version.version) == ("bottle", "nfbmr-bottle", "1")
    assert version.aliases == (CHALLENGER,)
    assert version.tags["nfbmr.aggregate"] == "mean"
    assert registry.list_versions() == [version]
    assert registry.resolve("bottle", "1") == version
    assert registry.load("bottle", CHALLENGER).describe() == detector.describe()
    assert registry.losses(version) == {"flow_loss": [1.0, 0.5, pytest.approx(1 / 3), 0.25]}


def test_the_same_files_again_are_the_version_that_they_became(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    """A registration that was cut off anywhere can be done again."""
    first = register(registry, detector, tmp_path / "files")
    other = register(registry, detector, tmp_path / "files", night=2)
    again = register(registry, detector, tmp_path / "files")
    assert (first.version, other.version, again.version) == ("1", "2", "1")
    assert registry.losses(again)["flow_loss"] == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
    assert [v.version for v in registry.list_versions("bottle")] == ["2", "1"]


def test_promotion_moves_the_aliases(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    for night in (1, 2, 3):
        register(registry, detector, tmp_path / "files", night)
    registry.promote("bottle", "1", {"nfbmr.decision": "first"})
    registry.promote("bottle", "2", {"nfbmr.decision": "better"})
    assert registry.resolve("bottle", CHAMPION).version == "2"
    assert registry.resolve("bottle", PREVIOUS).version == "1"
    assert registry.resolve("bottle", CHALLENGER).version == "3"
    assert registry.resolve("bottle", "2").tags["nfbmr.decision"] == "better"
    registry.promote("bottle", "2", {"nfbmr.decision": "again"})
    assert registry.resolve("bottle", PREVIOUS).version == "1"


def test_a_resolved_version_stays_the_same_when_the_champion_changes(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    register(registry, detector, tmp_path / "files")
    registry.promote("bottle", "1", {})
    pinned = registry.resolve("bottle")
    register(registry, detector, tmp_path / "files", 2)
    registry.promote("bottle", "2", {})
    assert load_detector(pinned, registry.uri).category == "bottle"
    assert pinned.version == "1"


def test_unknown_names_say_what_there_is(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match=r"run jobs/train\.py first"):
        registry.resolve("bottle")
    register(registry, detector, tmp_path / "files")
    with pytest.raises(RegistryError, match=r"Did you mean 'bottle'\?.*Known: bottle"):
        registry.resolve("botle")
    with pytest.raises(RegistryError, match=r"no version or alias 'champion'.*aliases challenger"):
        registry.resolve("bottle", CHAMPION)
    with pytest.raises(RegistryError, match="no version or alias '7': its versions are 1"):
        registry.resolve("bottle", "7")


def test_files_that_are_gone_are_named(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    version = register(registry, detector, tmp_path / "files")
    (Path(version.source) / TENSORS_FILE).unlink()
    with pytest.raises(
        RegistryError, match=f"version 1 is registered, but its file {TENSORS_FILE}"
    ):
        registry.load("bottle", "1")


def test_a_registry_that_cannot_be_reached_is_one_sentence_without_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://user:hunter2@127.0.0.1:9")
    with pytest.raises(RegistryError, match="failed while") as caught:
        registry.prepare()
    assert "hunter2" not in str(caught.value)
    assert "--registry" in str(caught.value)


def test_artifacts_in_an_object_store_are_read_without_mlflow(
    registry: Registry, detector: Detector, tmp_path: Path, s3_bucket: str
) -> None:
    detector.save(tmp_path / "files")
    registry.client.create_experiment("nfbmr", artifact_location=f"{s3_bucket}/mlflow")
    version = register(registry, detector, tmp_path / "files")
    assert version.source.startswith(s3_bucket)
    assert load_detector(version, "not needed").describe() == detector.describe()
