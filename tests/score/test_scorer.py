"""What a unit's actor makes of scores that are none, and of a store that fails while heads load."""

import math
from typing import Any

import pytest

from nfbmr.errors import RegistryError, RegistryUnavailableError, StoreError
from nfbmr.model_version import ModelVersion
from nfbmr.score import scorer as scorer_module
from nfbmr.score.plan import PlannedModel
from nfbmr.score.scorer import Scorer, _finite
from nfbmr.score.unit_row import UnitPicture


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
