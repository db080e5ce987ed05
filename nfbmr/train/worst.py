"""Training pictures that fit worst: listed for people, and left out where the settings say so.

A detector learns from pictures that somebody called normal. Those among them that are not are
unlike the others, and stay hard to fit: they stand out in the scores of the training pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nfbmr import plain_values

FITTED = "fitted"
HELD_OUT = "held out"
CROSS_FITTED = "cross-fitted"
TRIMMED = "trimmed"
_MAD_TO_STD = 1.4826


@dataclass(frozen=True, slots=True)
class WorstPicture:
    """A training picture and how badly it fits.

    Attributes:
        uri: where it lies.
        role: ``fitted``, ``held out``, ``cross-fitted`` (judged by heads that did not see it) or
            ``trimmed`` (left out of the fit by the settings).
        score: its image score.
        deviation: of the score's logarithm from the median of its role's pictures, in robust
            standard deviations. Scores of pictures that were fitted on are lower than those of
            others; this can be compared.
    """

    uri: str
    role: str
    score: float
    deviation: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Any) -> WorstPicture:
        """A row of a JSON file; raises as ``plain_values`` does, or ``KeyError``."""
        values = plain_values.mapping(row)
        return cls(
            uri=plain_values.text(values["uri"]),
            role=plain_values.text(values["role"]),
            score=plain_values.number(values["score"]),
            deviation=plain_values.number(values["deviation"]),
        )


def deviations(score_N: Tensor) -> Tensor:
    """How far positive scores lie above their median, on a logarithmic scale.

    Args:
        score_N: image scores; at least one.

    Returns:
        (N,), float64, in robust standard deviations: 1.4826 times the median absolute deviation.
    """
    log_N = score_N.double().clamp_min(1e-12).log()
    centred_N = log_N - log_N.median()
    spread = (_MAD_TO_STD * centred_N.abs().median()).clamp_min(1e-6)
    return centred_N / spread


def judged(role: str, uris: Sequence[str], score_N: Tensor) -> list[WorstPicture]:
    """Pictures of one role with their scores and deviations, in the order given.

    Args:
        role: of all of them.
        uris: where they lie.
        score_N: their image scores.
    """
    if len(uris) == 0:
        return []
    rows = zip(uris, score_N.tolist(), deviations(score_N).tolist(), strict=True)
    return [WorstPicture(uri, role, score, deviation) for uri, score, deviation in rows]


def worst_of(pictures: Sequence[WorstPicture], count: int) -> list[WorstPicture]:
    """Those with the largest deviations, the worst first."""
    return sorted(pictures, key=lambda picture: -picture.deviation)[:count]


def kept_pictures(score_N: Tensor, share: float, least_deviation: float) -> Tensor:
    """Which pictures stay when the worst are left out.

    Args:
        score_N: image scores of the training pictures.
        share: at most this share is left out.
        least_deviation: only pictures that deviate at least so much are; 0 asks for nothing.

    Returns:
        (N,), bool; at least one picture stays.
    """
    most = min(int(share * len(score_N)), len(score_N) - 1)
    kept_N = torch.ones(len(score_N), dtype=torch.bool)
    if most > 0:
        deviation_N = deviations(score_N)
        worst = deviation_N.argsort(descending=True, stable=True)[:most]
        if least_deviation > 0:
            worst = worst[deviation_N[worst] >= least_deviation]
        kept_N[worst] = False
    return kept_N
