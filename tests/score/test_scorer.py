"""What a unit's actor makes of scores that are none, and of what it cannot load."""

import io
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nfbmr.errors import (
    RegistryError,
    RegistryUnavailableError,
    StoreError,
    WeightsError,
    WorkerError,
)
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE
from nfbmr.model_version import ModelVersion
from nfbmr.score import forward as forward_module
from nfbmr.score import scorer as scorer_module
from nfbmr.score.plan import PlannedModel
from nfbmr.score.schema import score_schema
from nfbmr.score.scorer import Scorer, _finite
from nfbmr.score.stage_clock import StageClock
from nfbmr.score.unit_row import UNIT_ROW, UnitPicture, pictures_to_json
from nfbmr.score.units import finished_units, read_unit
from nfbmr.settings import RunSettings
from tests.registry.finished_fit import make_detector
from tests.security.test_limits import jpeg_of_many_scans


def pictures(count: int) -> list[UnitPicture]:
    return [UnitPicture(f"/a/{n}.png", "/a", f"{n}.png") for n in range(count)]


def test_a_score_that_is_no_number_costs_its_own_picture_alone() -> None:
    """Found in review: the other 63 pictures of the unit lost theirs, too."""
    own = pictures(4)
    columns: dict[str, Any] = {"score": [1.0, math.inf, 2.0, math.nan], "p_value": [1, 2, 3, 4]}
    assert _finite(columns, own) == {"score": [1.0, 2.0], "p_value": [1, 3]}
    assert [picture.error_kind for picture in own] == [None, "model", None, "model"]
    whole: dict[str, Any] = {"score": [1.0, 2.0]}
    assert _finite(whole, pictures(2)) is whole


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RegistryUnavailableError("The registry is gone."), StoreError),
        (RegistryError("Its file is not there."), RegistryError),
    ],
)
def test_a_registry_that_is_gone_while_heads_load_ends_the_run(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: unit after unit became error rows."""
    version = ModelVersion("bottle", "nfbmr-bottle", "1", "r", "file:///none", (), {}, 0.0)
    model = PlannedModel(version, {"image_size_px": 64}, "embedded", (8, 2, 2))

    def refuse(*_: object) -> None:
        raise raised

    monkeypatch.setattr(scorer_module, "load_detector", refuse)
    scorer = Scorer.__new__(Scorer)
    scorer.models, scorer.patience_s = {"bottle": model}, 0.0
    scorer.registry = scorer_module.Registry("sqlite:///none.db")
    with pytest.raises(expected, match=str(raised)):
        scorer._load("bottle")


SETTINGS = RunSettings(store_patience_s=0.01)
MODEL = "experiment/run/artifacts/detector"


def scorer_of(folder: Path, weights: str | None = None) -> Scorer:
    """A scorer of one category, whose detector it still has to load from a folder."""
    detector = make_detector()
    model = folder / MODEL
    detector.save(model)
    version = ModelVersion("bottle", "nfbmr-bottle", "1", "r", str(model), (), {}, 0.0)
    described = json.loads((model / JSON_FILE).read_text())
    shape = detector.heads.shape
    models = {"bottle": PlannedModel(version, described["backbone"], "embedded", shape)}
    schema = score_schema({shape[1] * shape[2]}, "float16")
    registry = f"sqlite:///{folder}/mlflow.db"
    return Scorer(models, str(folder), "r" * 32, schema, SETTINGS, 1, registry, weights)


def unit_of(count: int, others: Sequence[bytes] = ()) -> pa.Table:
    """A unit of other pictures and pictures of noise, as it comes from a fetching task."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    encoded = list(others)
    for pixels_HWC in noise:
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, "png")
        encoded.append(buffer.getvalue())
    own = [
        replace(picture, encoded_bytes=len(data), content_hash="ab")
        for picture, data in zip(pictures(len(encoded)), encoded, strict=True)
    ]
    row = {"unit": "u", "category": "bottle", "pictures": pictures_to_json(own)}
    row |= {"encoded": b"".join(encoded), **StageClock().seconds}
    return pa.Table.from_pylist([row], schema=UNIT_ROW)


def kinds_of(folder: Path) -> list[str | None]:
    """The kinds of error in the unit's rows; None for a picture with a score."""
    kinds: list[str | None] = read_unit(str(folder), "u").column("error_kind").to_pylist()
    return kinds


def test_what_can_be_loaded_scores_and_is_compared(tmp_path: Path) -> None:
    statistics = scorer_of(tmp_path)(unit_of(3)).to_pylist()[0]
    assert kinds_of(tmp_path) == [None] * 3
    assert (statistics["failed"], statistics["difference_pictures"]) == (0, 3)
    assert statistics["not_compared"] is None


@pytest.mark.parametrize("careful", [0, 1])
def test_costly_pictures_share_what_a_unit_may_take(
    careful: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: side by side they stalled the run, and so at each repetition."""
    monkeypatch.setitem(globals(), "SETTINGS", replace(SETTINGS, stall_timeout_s=2.0))
    scorer = scorer_of(tmp_path)
    scorer.careful_units = careful
    scorer(unit_of(2, [jpeg_of_many_scans(300, 20_000)] * 6))
    scorer.careful.close()
    assert kinds_of(tmp_path) == ["too_slow"] * 6 + [None] * 2
    errors = read_unit(str(tmp_path), "u").column("error").to_pylist()
    assert all("less than the usual 60 s" in error for error in errors[:6])


def test_weights_that_this_worker_does_not_see_end_the_run(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, str(tmp_path / "elsewhere.safetensors"))
    with pytest.raises(WorkerError, match=r"cannot load the backbone: .*no such file.*stays\."):
        scorer(unit_of(3))
    assert finished_units(str(tmp_path)) == set()


def test_weights_in_a_store_that_fails_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise WeightsError("cannot be read") from TimeoutError()

    monkeypatch.setattr(forward_module, "BackboneRunner", fails)
    with pytest.raises(StoreError, match="cannot load the backbone: cannot be read"):
        scorer_of(tmp_path)(unit_of(3))
    assert finished_units(str(tmp_path)) == set()


def test_models_whose_place_a_worker_does_not_see_end_the_run(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path)
    shutil.rmtree(tmp_path / "experiment")
    with pytest.raises(RegistryError, match=r"is not at .*does not see.*What was finished stays\."):
        scorer(unit_of(3))
    assert finished_units(str(tmp_path)) == set()


def test_a_model_that_is_gone_costs_its_own_pictures(tmp_path: Path) -> None:
    """Somebody has removed it since the run was planned: no repetition brings it back."""
    scorer = scorer_of(tmp_path)
    shutil.rmtree(tmp_path / "experiment" / "run")
    assert scorer(unit_of(3)).to_pylist()[0]["failed"] == 3
    assert kinds_of(tmp_path) == ["model"] * 3


def damage_tensors(model: Path) -> None:
    (model / TENSORS_FILE).write_bytes((model / TENSORS_FILE).read_bytes()[:-8])


def name_another_backbone(model: Path) -> None:
    described = json.loads((model / JSON_FILE).read_text())
    described["backbone"]["weights_hash"] = "0" * 64
    (model / JSON_FILE).write_text(json.dumps(described))


@pytest.mark.parametrize("damage", [damage_tensors, name_another_backbone])
def test_a_model_that_is_damaged_costs_its_own_pictures(tmp_path: Path, damage: Any) -> None:
    scorer = scorer_of(tmp_path)
    damage(tmp_path / MODEL)
    assert scorer(unit_of(3)).to_pylist()[0]["failed"] == 3
    assert kinds_of(tmp_path) == ["model"] * 3


@pytest.mark.parametrize("failure", [WeightsError("gone"), RuntimeError("out of memory")])
def test_scores_stay_where_they_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise failure

    monkeypatch.setattr(forward_module, "compare_forward", fails)
    scorer = scorer_of(tmp_path)
    told = [scorer(unit_of(3)).to_pylist()[0] for _ in range(2)]
    assert kinds_of(tmp_path) == [None] * 3
    assert told[0]["not_compared"] == f"{type(failure).__name__}: {failure}"
    assert told[1]["not_compared"] is None
    assert len(tried) == 1
