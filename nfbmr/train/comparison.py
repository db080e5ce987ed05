"""Everything that is measured of a challenger, and of the champion on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nfbmr.gate_settings import GateSettings
from nfbmr.metrics import Rate, image_auroc, rate
from nfbmr.model.calibration import Calibration
from nfbmr.train.evidence import Evidence

BLOCKS = 5
_FEWEST_TO_COMPARE = 10

Number = float | int | str | None


@dataclass(frozen=True, slots=True)
class Opponent:
    """The champion, as far as it can be compared with a challenger.

    Attributes:
        version: its number.
        scores: its image scores by picture, of pictures that the challenger scored, too.
        threshold: above which it calls a picture anomalous.
        fitted_at: when, in ISO 8601; empty where its version does not say.
        compared_by: where the scores come from.
        calibrated_with: pictures that its threshold follows from; it cannot alarm on more of them
            than it was allowed to.
        unusable: why it cannot be loaded; empty where it can. Nobody can score with such a one.
    """

    version: str
    scores: Mapping[str, float]
    threshold: float
    fitted_at: str
    compared_by: str
    calibrated_with: frozenset[str] = frozenset()
    unusable: str = ""


def measure(
    challenger: Evidence, requested_rate: float, opponent: Opponent | None, settings: GateSettings
) -> dict[str, Number]:
    """Numbers by name; those that cannot be measured are None or missing.

    Args:
        challenger: its scores.
        requested_rate: false-alarm rate that its threshold stands for.
        opponent: the champion, or None.
        settings: which labelled pictures count.
    """
    numbers: dict[str, Number] = {"requested_false_alarm_rate": requested_rate}
    other = None if opponent is None else opponent.scores
    if opponent is not None:
        numbers["compared_by"] = opponent.compared_by
    numbers |= _labelled(challenger, other, settings)
    numbers |= _synthetic(challenger, other)
    if len(challenger.held_out) > 1:
        scores = list(challenger.held_out.values())
        alarms, promised = out_of_block_alarms(scores, requested_rate)
        numbers |= _rate_numbers("false_alarms", alarms)
        numbers["promised_false_alarm_rate"] = promised
    if opponent is not None:
        new = [name for name in challenger.held_out if name not in opponent.calibrated_with]
        common = [name for name in new if name in opponent.scores]
        alarms_n = sum(opponent.scores[name] > opponent.threshold for name in common)
        found = rate(alarms_n, len(common)) if len(common) >= _FEWEST_TO_COMPARE else None
        numbers |= _rate_numbers("champion_alarms", found) if found else {}
        numbers |= _rank_correlation(challenger, opponent)
    return numbers


def _rate_numbers(name: str, found: Rate) -> dict[str, Number]:
    return {
        name: found.count,
        f"{name}_of": found.n,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
    }


def _labelled(
    challenger: Evidence, other: Mapping[str, float] | None, settings: GateSettings
) -> dict[str, Number]:
    """AUROC on labelled pictures, on the same ones for both; None where they are too few."""
    names = [n for n in challenger.labelled if other is None or n in other]
    defective = set(challenger.defective)
    is_defective = [name in defective for name in names]
    bad, good = sum(is_defective), len(names) - sum(is_defective)
    if not settings.labelled or min(bad, good) < settings.labelled_needed:
        return {"labelled_auroc": None}
    numbers: dict[str, Number] = {"labelled_normal": good, "labelled_defective": bad}
    numbers["labelled_auroc"] = image_auroc(is_defective, [challenger.labelled[n] for n in names])
    if other is not None:
        numbers["champion_labelled_auroc"] = image_auroc(is_defective, [other[n] for n in names])
    return numbers


def _synthetic(challenger: Evidence, other: Mapping[str, float] | None) -> dict[str, Number]:
    """AUROC between held-out normals and synthetic defects, on the same ones for both."""

    def auroc(scores: Mapping[str, float], kept: Mapping[str, float] | None) -> float | None:
        normal = [n for n in challenger.held_out if kept is None or n in kept]
        cut = [n for n in challenger.synthetic if kept is None or n in kept]
        if min(len(normal), len(cut)) < _FEWEST_TO_COMPARE and kept is not None:
            return None
        labels = [False] * len(normal) + [True] * len(cut)
        return image_auroc(labels, [scores[n] for n in [*normal, *cut]]) if labels else None

    if other is None:
        return {"synthetic_auroc": auroc(challenger.scores, None)}
    against = auroc(other, other)
    own = auroc(challenger.scores, other if against is not None else None)
    return {"synthetic_auroc": own, "champion_synthetic_auroc": against}


def _rank_correlation(challenger: Evidence, opponent: Opponent) -> dict[str, Number]:
    names = [n for n in [*challenger.held_out, *challenger.synthetic] if n in opponent.scores]
    if len(names) < _FEWEST_TO_COMPARE:
        return {"agreement": None, "agreement_pictures": len(names)}
    own, others = [challenger.scores[n] for n in names], [opponent.scores[n] for n in names]
    if len(set(own)) == 1 or len(set(others)) == 1:
        return {"agreement": 0.0, "agreement_pictures": len(names)}
    from scipy import stats  # Half a second that workers of a fit need not spend.

    found = float(stats.spearmanr(own, others).statistic)
    return {"agreement": found, "agreement_pictures": len(names)}


def out_of_block_alarms(scores: Sequence[float], requested_rate: float) -> tuple[Rate, float]:
    """False alarms on held-out normals, each judged by a threshold that it did not make.

    The scores are cut into five runs of consecutive pictures, so that pictures taken one after the
    other stay together; every run is judged with the calibration that the other four make.

    Args:
        scores: of held-out normals in the order they were taken, at least two.
        requested_rate: in (0, 1).

    Returns:
        The false alarms, and the rate to expect: the requested one, or the lowest that so few
        pictures can promise.
    """
    blocks = np.array_split(np.asarray(scores, dtype=np.float64), min(BLOCKS, len(scores)))
    alarms, promised = 0, requested_rate
    for index, block in enumerate(blocks):
        others = Calibration.from_scores(np.concatenate(blocks[:index] + blocks[index + 1 :]))
        promised = max(promised, others.p_value_floor)
        own_rate = max(requested_rate, others.p_value_floor)
        alarms += int((others.p_values(block) <= own_rate + 1e-9).sum())
    found = rate(alarms, len(scores))
    assert found is not None
    return found, promised
