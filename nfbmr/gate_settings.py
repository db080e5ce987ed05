"""The settings of the promotion gate."""

from __future__ import annotations

from dataclasses import dataclass

from nfbmr.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GateSettings:
    """When a newly fitted version becomes the champion.

    Where a category has enough labelled test pictures, their AUROC decides; they are used for
    nothing else. Elsewhere the held-out normals and the synthetic defects decide.

    Attributes:
        labelled: judge by labelled test pictures where there are enough.
        labelled_needed: enough is so many normal and so many defective ones.
        max_labelled: of more than this, a fixed share is used.
        min_auroc: below this AUROC (labelled, else synthetic) nothing is promoted, not even the
            first version; 0.5 is what guessing gives.
        max_auroc_loss: so much lower than the champion's on the same pictures may it be.
        max_false_alarm_ratio: the false-alarm rate on held-out normals that did not make the
            threshold may be so many times the requested one; judged by the lower end of its 95 %
            interval.
        max_champion_alarm_ratio: the same for the champion's alarms on held-out normals that are
            new tonight: where it calls many of them anomalous, the data have changed.
        min_agreement: least rank correlation (Spearman) of the challenger's scores with the
            champion's on held-out normals and synthetic defects.
    """

    labelled: bool = True
    labelled_needed: int = 10
    max_labelled: int = 400
    min_auroc: float = 0.5
    max_auroc_loss: float = 0.02
    max_false_alarm_ratio: float = 2.0
    max_champion_alarm_ratio: float = 3.0
    min_agreement: float = 0.5

    def __post_init__(self) -> None:
        if self.labelled_needed < 1 or self.max_labelled < 2 * self.labelled_needed:
            raise ConfigError(
                f"gate.labelled_needed = {self.labelled_needed} and gate.max_labelled = "
                f"{self.max_labelled}: expected at least 1, and room for so many of both kinds."
            )
        for name in ("min_auroc", "max_auroc_loss"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"gate.{name} = {getattr(self, name):g}: expected 0 to 1.")
        if not -1.0 <= self.min_agreement <= 1.0:
            raise ConfigError(
                f"gate.min_agreement = {self.min_agreement:g}: expected a rank correlation, -1 to "
                "1; -1 lets everything pass."
            )
        for name in ("max_false_alarm_ratio", "max_champion_alarm_ratio"):
            if getattr(self, name) < 1.0:
                raise ConfigError(f"gate.{name} = {getattr(self, name):g}: must be at least 1.")
