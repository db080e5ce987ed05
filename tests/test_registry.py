"""A real MLflow on SQLite: register, list, resolve, promote, load; errors name what there is."""

from pathlib import Path

import pytest
import torch

from nfbmr.errors import RegistryError
from nfbmr.model.backbone import BackboneSettings, create_backbone
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import TENSORS_FILE, Detector
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.model_version import MetricPoint, ModelVersion
from nfbmr.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, load_detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    backbone = create_backbone(BackboneSettings(image_size_px=64))
    settings = HeadsSettings(
        FlowSettings(hidden_channels=16), MapperSettings(latent_channels=8, block_channels=4)
    )
    return Detector(
        category="bottle",
        backbone=backbone.identity(),
        weights="embedded",
        heads=Heads(backbone.shape, settings).eval(),
        aggregate="mean",
        calibration=Calibration.from_scores(range(1, 20)),
        false_alarm_rate=0.05,
    )


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating MLflow's tables takes seconds: done once, copied for every test."""
    folder = tmp_path_factory.mktemp("database")
    Registry(f"sqlite:///{folder}/mlflow.db").client.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Registry:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


def register(
    registry: Registry, detector: Detector, folder: Path, category: str = "bottle"
) -> ModelVersion:
    detector.save(folder)
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


def test_promotion_moves_the_aliases(
    registry: Registry, detector: Detector, tmp_path: Path
) -> None:
    for _ in range(3):
        register(registry, detector, tmp_path / "files")
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
    register(registry, detector, tmp_path / "files")
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
