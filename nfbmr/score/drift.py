"""Do the scores of an archive still look like those the models were calibrated on?

While the pictures are like the held-out normals, a p-value is uniform on ``1/(n+1), 2/(n+1), …, 1``
(n is the calibration's size; smaller values cannot occur). What moves that distribution is either
defects, which make small values, or a camera, a lamp or a material that changed.

How far it moved is the Kolmogorov-Smirnov statistic: the largest distance between the share of
p-values up to a value and that value, over the n + 1 values that there are. Even without any drift
it is not 0: the calibration is itself a sample of n pictures, so chance moves it as in the
two-sample test of n against m (``chance``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.settings import DriftSettings

LOW = 0.01
"""``share_below_low`` counts p-values below this."""

_CHANCE_LIMIT = 0.01


@dataclass(frozen=True)
class CategoryDrift:
    """The p-values of one category's pictures against uniform.

    Attributes:
        calibration_size: n of the p-values.
        p_value_floor: 1 / (n + 1), the smallest p-value that can occur.
        pictures: with a p-value.
        ks: Kolmogorov-Smirnov statistic, 0..1.
        chance: how often chance alone makes the statistic so large.
        share_below_low: of p-values below 0.01; None where the floor is not below that.
        expected_below_low: what that share is without drift.
        warning: what is past its limit, in words; None where nothing is.
    """

    calibration_size: int
    p_value_floor: float
    pictures: int
    ks: float
    chance: float
    share_below_low: float | None
    expected_below_low: float | None
    warning: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def category_drift(counts: NDArray[np.int64], settings: DriftSettings) -> CategoryDrift:
    """Compare p-values with the uniform distribution.

    Args:
        counts: (n + 1,), how many p-values are ``(k + 1) / (n + 1)``; not all 0.
        settings: the limits.
    """
    n = len(counts) - 1
    pictures = int(counts.sum())
    values = np.arange(1, n + 2) / (n + 1)
    ks = float(np.abs(np.cumsum(counts) / pictures - values).max())
    from scipy.stats import kstwo  # Half a second that only the driver needs, and only at the end.

    chance = float(kstwo.sf(ks, max(1, round(n * pictures / (n + pictures)))))
    # The guard keeps 0.01 * 100 from counting as below 1.
    below = math.ceil(LOW * (n + 1) - 1e-9) - 1
    share = float(counts[:below].sum() / pictures) if below > 0 else None
    expected = below / (n + 1) if below > 0 else None
    warning = _warning(pictures, ks, chance, share, settings)
    return CategoryDrift(n, 1 / (n + 1), pictures, ks, chance, share, expected, warning)


def _warning(
    pictures: int, ks: float, chance: float, share: float | None, settings: DriftSettings
) -> str | None:
    if pictures < settings.min_pictures:
        return None
    reasons = []
    if ks > settings.max_ks and chance < _CHANCE_LIMIT:
        reasons.append(f"KS statistic {ks:.3f} is above run.drift.max_ks = {settings.max_ks:g}")
    if share is not None and share > settings.max_share_below:
        reasons.append(
            f"{share:.1%} of the p-values are below {LOW:g}, more than "
            f"run.drift.max_share_below = {settings.max_share_below:g}"
        )
    return "; ".join(reasons) or None


def drift_by_category(
    counts: Mapping[str, NDArray[np.int64]], settings: DriftSettings
) -> dict[str, CategoryDrift]:
    """``category_drift`` of every category, by name."""
    return {name: category_drift(own, settings) for name, own in sorted(counts.items())}
