"""A challenger becomes champion unless it is measurably worse; the decision has its numbers."""

import pytest

from nfbmr.model_version import ModelVersion
from nfbmr.train.gate import ALLOWED_LOSS_AUROC, EVIDENCE_TAG, decide


def champion(auroc: float | None) -> ModelVersion:
    tags = {} if auroc is None else {EVIDENCE_TAG: str(auroc)}
    return ModelVersion("bottle", "nfbmr-bottle", "3", "run", "file", ("champion",), tags, 0.0)


def test_the_first_version_is_promoted() -> None:
    assert decide(0.1, None).promote


@pytest.mark.parametrize(
    ("new", "old", "promote"),
    [
        (0.95, 0.90, True),
        (0.90, 0.90, True),
        (0.90 - ALLOWED_LOSS_AUROC / 2, 0.90, True),
        (0.90 - ALLOWED_LOSS_AUROC * 2, 0.90, False),
    ],
)
def test_it_may_be_a_little_worse_but_not_more(new: float, old: float, promote: bool) -> None:
    decision = decide(new, champion(old))
    assert decision.promote is promote
    assert f"{new:.3f}" in decision.reason
    assert f"{old:.3f}" in decision.reason


def test_without_evidence_on_both_sides_the_reason_says_so() -> None:
    assert "cannot be compared" in decide(0.9, champion(None)).reason
    assert "cannot be compared" in decide(None, champion(0.9)).reason
