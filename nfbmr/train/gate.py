"""The promotion gate: does a newly fitted version become the champion?"""

from __future__ import annotations

from dataclasses import dataclass

from nfbmr.model_version import ModelVersion

EVIDENCE_TAG = "nfbmr.synthetic_auroc"
ALLOWED_LOSS_AUROC = 0.02


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, and the sentence that says why, with its numbers."""

    promote: bool
    reason: str


def decide(synthetic_auroc: float | None, champion: ModelVersion | None) -> Decision:
    """Compare a challenger with the champion on what both were measured with, without labels.

    Args:
        synthetic_auroc: how well the challenger tells held-out normals from synthetic defects.
        champion: the version in use, whose tags hold the same number, or None.
    """
    if champion is None:
        return Decision(True, "there was no champion")
    before = champion.tags.get(EVIDENCE_TAG)
    if synthetic_auroc is None or before is None:
        return Decision(True, f"version {champion.version} cannot be compared: no evidence on both")
    numbers = f"AUROC on synthetic defects {synthetic_auroc:.3f}, champion's {float(before):.3f}"
    if synthetic_auroc >= float(before) - ALLOWED_LOSS_AUROC:
        return Decision(True, f"{numbers}, at most {ALLOWED_LOSS_AUROC} lower is allowed")
    return Decision(False, f"{numbers}: more than {ALLOWED_LOSS_AUROC} lower")
