"""What a score means: p-values and thresholds from the scores of held-out normal pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfbmr.errors import ConfigError, DataError


@dataclass(frozen=True)
class Calibration:
    """Sorted scores of held-out normal pictures (split conformal calibration).

    If a new normal picture is exchangeable with the held-out ones, its p-value is at most ``a``
    with probability at most ``a`` (Vovk, Gammerman and Shafer 2005; Bates et al. 2023).

    Attributes:
        scores: finite scores in ascending order, float64, at least one.
    """

    scores: NDArray[np.float64]

    @classmethod
    def from_scores(cls, scores: Sequence[float] | ArrayLike) -> Calibration:
        """Sort and check the held-out scores.

        Raises:
            DataError: there are none, or one is not finite.
        """
        values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
        if values.size == 0:
            raise DataError(
                "There is no held-out normal picture to calibrate with: give the category more "
                "normal pictures or raise calibration.held_out_share."
            )
        if not np.isfinite(values).all():
            raise DataError(
                f"{int((~np.isfinite(values)).sum())} of {values.size} calibration scores are not "
                "finite numbers: the fit has diverged; fit the category again with a lower "
                "fit.flow_learning_rate."
            )
        return cls(values)

    @property
    def n(self) -> int:
        """Number of held-out normal pictures."""
        return int(self.scores.size)

    @property
    def p_value_floor(self) -> float:
        """The smallest p-value that n pictures can give: 1/(n + 1)."""
        return 1.0 / (self.n + 1)

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """``(1 + #{calibration ≥ score}) / (n + 1)`` for each score, same shape, float64."""
        values = np.asarray(scores, dtype=np.float64)
        not_below = self.n - np.searchsorted(self.scores, values, side="left")
        return np.asarray((1.0 + not_below) / (self.n + 1.0), dtype=np.float64)

    def threshold(self, false_alarm_rate: float) -> float:
        """The score above which a picture is called anomalous.

        A picture is anomalous when its score lies strictly above the threshold, which is the same
        as p-value ≤ ``false_alarm_rate``.

        Args:
            false_alarm_rate: share of normal pictures that may be called anomalous, in (0, 1).

        Raises:
            ConfigError: the rate is outside (0, 1) or below what n pictures can promise.
        """
        if not 0.0 < false_alarm_rate < 1.0:
            raise ConfigError(
                f"A false-alarm rate of {false_alarm_rate} is not a share between 0 and 1: "
                "0.01 means one false alarm in a hundred normal pictures."
            )
        # The guard keeps 0.05 * 20 from counting as 0.9999999.
        allowed_not_below = math.floor(false_alarm_rate * (self.n + 1) + 1e-9) - 1
        if allowed_not_below < 0:
            needed = math.ceil(1.0 / false_alarm_rate - 1e-9) - 1
            raise ConfigError(
                f"A false-alarm rate of {false_alarm_rate:g} cannot be promised by {self.n} "
                f"held-out normal pictures (their floor is {self.p_value_floor:.4g}): hold out at "
                f"least {needed}, or ask for {self.p_value_floor:.4g} or more."
            )
        return float(self.scores[self.n - 1 - allowed_not_below])
