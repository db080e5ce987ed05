"""Models and weights in files are places, too, that all nodes must see."""

from nfbmr.model_version import ModelVersion
from nfbmr.score.model_places import places_of_models
from nfbmr.score.plan import PlannedModel


def planned(source: str, weights: str) -> PlannedModel:
    version = ModelVersion("nut", "nfbmr-nut", "1", "r", source, (), {}, 0.0)
    return PlannedModel(version, {}, weights, (8, 2, 2))


def test_models_and_weights_in_files_must_be_seen_too() -> None:
    models = [
        planned("file:///models/1", "/w.safetensors"),
        planned("/models/2", "embedded"),
        planned("mlflow-artifacts:/3", "s3://bucket/w.safetensors"),
        planned("s3://user:secret@bucket/4", "/w.safetensors"),
    ]
    weights = ["/w.safetensors", "s3://bucket/w.safetensors"]
    assert places_of_models(models, None) == [*weights, "file:///models/1", "/models/2"]
    moved = places_of_models(models, "w2.safetensors")
    assert moved == ["w2.safetensors", "file:///models/1", "/models/2"]
