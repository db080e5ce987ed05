"""The promotion gate: does a newly fitted version become the champion?

Where a category has labelled test pictures, their AUROC decides. Where it has none: whether the
challenger tells synthetic defects from held-out normals as well as the champion does; how often it
gives false alarms on held-out normals that did not make its threshold; and whether the two agree:
the champion must not call many of tonight's normals anomalous, and both must rank the pictures
alike. All numbers are kept with the decision, those too that did not decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nfbmr.gate_settings import GateSettings
from nfbmr.train.comparison import Number, Opponent, measure
from nfbmr.train.evidence import Evidence

BY_LABELS = "labelled pictures"
WITHOUT_LABELS = "no labels"
NOBODY = "none"
"""Instead of a champion's version, where there was none."""
REFUSED = "refused"
_TAG = "nfbmr.gate"
VERDICT_TAG = _TAG
AGAINST_TAG = f"{_TAG}.against"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, whether it holds, and the sentence with its numbers."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why.

    Attributes:
        promote: the decision.
        reason: in a sentence, with its numbers.
        basis: ``labelled pictures`` or ``no labels``.
        against: version of the champion that it was made against, or None.
        checks: the conditions that decided.
        numbers: everything that was measured.
    """

    promote: bool
    reason: str
    basis: str = WITHOUT_LABELS
    against: str | None = None
    checks: tuple[Check, ...] = ()
    numbers: dict[str, Number] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: the content of ``decision.json``."""
        return asdict(self)

    def tags(self) -> dict[str, str]:
        """The decision and its numbers as tags of the version."""
        tags = {
            VERDICT_TAG: "passed" if self.promote else REFUSED,
            f"{_TAG}.basis": self.basis,
            AGAINST_TAG: self.against or NOBODY,
            "nfbmr.decision": self.reason[:2000],
        }
        for name, value in self.numbers.items():
            if value is not None:
                tags[f"{_TAG}.{name}"] = f"{value:.6g}" if isinstance(value, float) else str(value)
        return tags


def decide(
    challenger: Evidence,
    fitted_at: str,
    requested_rate: float,
    opponent: Opponent | None,
    settings: GateSettings,
    taken_back: str | None = None,
) -> Decision:
    """Judge a challenger, against the champion where there is one that can be loaded.

    Args:
        challenger: its scores.
        fitted_at: when it was fitted, in ISO 8601.
        requested_rate: false-alarm rate that its threshold stands for.
        opponent: the champion, or None.
        settings: what is asked.
        taken_back: the version that somebody rolled back last, where the challenger was fitted on
            the same pictures with the same settings.
    """
    other = None if opponent is None or opponent.unusable else opponent
    numbers = measure(challenger, requested_rate, other, settings)
    basis = WITHOUT_LABELS if numbers["labelled_auroc"] is None else BY_LABELS
    checks = [_floor(numbers, basis, settings)]
    if basis == WITHOUT_LABELS:
        checks.append(_false_alarms(numbers, settings))
    checks.append(_not_taken_back(taken_back))
    if other is not None:
        checks.append(_not_older(fitted_at, other))
        checks.append(_not_worse(numbers, basis, settings))
        if basis == WITHOUT_LABELS:
            checks += _agreement(numbers, settings)
    made = [check for check in checks if check is not None]
    failed = [check for check in made if not check.passed]
    against = _against(opponent)
    sentences = "; ".join(check.text for check in failed or made)
    reason = f"{against}: {sentences}" if sentences else against
    if opponent is not None and opponent.unusable:
        reason += f" ({opponent.unusable})"
    return Decision(
        promote=not failed,
        reason=reason,
        basis=basis,
        against=opponent.version if opponent else None,
        checks=tuple(made),
        numbers=numbers,
    )


def _against(opponent: Opponent | None) -> str:
    if opponent is None:
        return "there was no champion"
    if opponent.unusable:
        return f"champion {opponent.version} cannot be loaded and so counts as none"
    return f"champion {opponent.version}"


def _floor(numbers: Mapping[str, Number], basis: str, settings: GateSettings) -> Check | None:
    name, what = _auroc_of(basis)
    value = numbers.get(name)
    if not isinstance(value, float):
        return None
    text = f"AUROC on {what} {value:.3f}, at least {settings.min_auroc:g} is asked"
    return Check("floor", value >= settings.min_auroc, text)


def _auroc_of(basis: str) -> tuple[str, str]:
    if basis == BY_LABELS:
        return "labelled_auroc", "labelled pictures"
    return "synthetic_auroc", "synthetic defects"


def _not_taken_back(version: str | None) -> Check | None:
    if version is None:
        return None
    text = (
        f"fitted on the same pictures with the same settings as version {version}, which was "
        "rolled back; `nfbmr models promote` decides otherwise"
    )
    return Check("not_taken_back", False, text)


def _not_older(fitted_at: str, opponent: Opponent) -> Check | None:
    if not fitted_at or fitted_at >= opponent.fitted_at:
        return None
    text = f"fitted {fitted_at}, before the champion ({opponent.fitted_at})"
    return Check("not_older", False, text)


def _not_worse(numbers: Mapping[str, Number], basis: str, settings: GateSettings) -> Check:
    name, what = _auroc_of(basis)
    own, other = numbers.get(name), numbers.get(f"champion_{name}")
    if not isinstance(own, float) or not isinstance(other, float):
        text = (
            "cannot be compared: the champion has no scores of the same pictures; promote by hand "
            "with `nfbmr models promote`"
        )
        return Check("not_worse", False, text)
    # Rounded, because 0.90 - 0.88 is a little more than 0.02.
    passed = round(other - own, 9) <= settings.max_auroc_loss
    text = (
        f"AUROC on {what} {own:.3f}, the champion's {other:.3f}; {settings.max_auroc_loss:g} lower "
        "is allowed"
    )
    return Check("not_worse", passed, text)


def _false_alarms(numbers: Mapping[str, Number], settings: GateSettings) -> Check | None:
    promised = numbers.get("promised_false_alarm_rate")
    if not isinstance(promised, float):
        return None
    allowed = min(1.0, promised * settings.max_false_alarm_ratio)
    low, text = _rate_text(numbers, "false_alarms")
    return Check(
        "false_alarms",
        low <= allowed,
        f"{text} held-out normals alarm at thresholds of others, {allowed:.3g} is allowed",
    )


def _rate_text(numbers: Mapping[str, Number], name: str) -> tuple[float, str]:
    low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    text = f"{numbers[name]} of {numbers[f'{name}_of']} (95 % interval {low:.3f} to {high:.3f})"
    return low, text


def _agreement(numbers: Mapping[str, Number], settings: GateSettings) -> list[Check]:
    checks = []
    requested, agreement = numbers["requested_false_alarm_rate"], numbers.get("agreement")
    if "champion_alarms" in numbers and isinstance(requested, float):
        allowed = min(1.0, requested * settings.max_champion_alarm_ratio)
        low, text = _rate_text(numbers, "champion_alarms")
        said = f"the champion alarms on {text} of tonight's new normals, {allowed:.3g} is allowed"
        checks.append(Check("champion_alarms", low <= allowed, said))
    if isinstance(agreement, float) and math.isfinite(agreement):
        said = (
            f"rank correlation with the champion {agreement:.3f} on "
            f"{numbers['agreement_pictures']} pictures, at least {settings.min_agreement:g} is "
            "asked"
        )
        checks.append(Check("agreement", agreement >= settings.min_agreement, said))
    return checks
