"""A run does not begin where a node does not see what it is to read."""

from pathlib import Path

import pytest

from nfbmr.errors import OutputError
from nfbmr.model_version import ModelVersion
from nfbmr.score.plan import PlannedModel
from nfbmr.score.shared_places import (
    _unseen,
    check_seen_by_all_nodes,
    local_places,
    places_of_models,
    refuse_unseen,
)


def test_the_node_and_the_path_are_named(tmp_path: Path) -> None:
    refuse_unseen({"10.0.0.1": [], "10.0.0.2": []})
    with pytest.raises(OutputError, match=r"/a\.tar is here, but not on .* 10\.0\.0\.2: give"):
        refuse_unseen({"10.0.0.1": [], "10.0.0.2": ["/a.tar"]})
    assert _unseen([str(tmp_path), str(tmp_path / "none")]) == [str(tmp_path / "none")]


def test_one_node_sees_what_it_sees(local_ray: None, tmp_path: Path) -> None:
    check_seen_by_all_nodes([str(tmp_path), str(tmp_path / "none"), "s3://bucket/prefix"])


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


def test_a_pattern_stands_for_the_folder_above_it(tmp_path: Path) -> None:
    (tmp_path / "2026-11" / "line7").mkdir(parents=True)
    (tmp_path / "a[1].tar").touch()
    patterns = [f"{tmp_path}/2026-11/line?/*.tar", f"file://{tmp_path}/2026-*/line7"]
    assert local_places(patterns) == [f"{tmp_path}/2026-11", str(tmp_path)]
    assert local_places([f"{tmp_path}/a[1].tar"]) == [f"{tmp_path}/a[1].tar"]
    assert local_places([f"{tmp_path}/none/*.tar", "s3://bucket/2026-*/x"]) == []
