"""Which normal pictures of a category are fitted on and which are held out to calibrate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nfbmr.data.sample import Sample
from nfbmr.errors import DataError
from nfbmr.settings import CalibrationSettings


@dataclass(frozen=True)
class Split:
    """Pictures to fit on and held-out pictures, both in a fixed order."""

    fit: list[Sample]
    held_out: list[Sample]


def split_normals(
    samples: Sequence[Sample], category: str, settings: CalibrationSettings, seed: int
) -> Split:
    """Hold out a share of a category's normal training pictures.

    A picture's place follows from a hash of its file name and the seed, so that tomorrow's new
    pictures do not move today's from one side to the other more than the share asks for.

    Raises:
        DataError: the category has no normal training pictures, or so few that the held-out ones
            cannot promise the false-alarm rate; the message says how many are needed.
    """
    normals = [s for s in samples if s.category == category and s.split == "train"]
    if not normals:
        raise DataError(
            f"Category {category!r} has no normal pictures to train on: put some where the layout "
            "expects them, or leave the category out with --categories."
        )
    needed_held_out = math.ceil(1.0 / settings.false_alarm_rate - 1e-9) - 1
    held_out_count = min(settings.max_held_out, int(settings.held_out_share * len(normals)))
    if held_out_count < needed_held_out or held_out_count >= len(normals):
        needed = math.ceil(needed_held_out / settings.held_out_share - 1e-9)
        raise DataError(
            f"Category {category!r} has {len(normals)} normal pictures, of which "
            f"calibration.held_out_share = {settings.held_out_share:g} holds out {held_out_count}. "
            f"A false-alarm rate of {settings.false_alarm_rate:g} needs {needed_held_out} held "
            f"out: give it at least {needed} normal pictures, raise calibration.held_out_share, or "
            "ask for a higher calibration.false_alarm_rate."
        )
    ordered = sorted(normals, key=lambda sample: _rank(sample, seed))
    return Split(fit=ordered[held_out_count:], held_out=ordered[:held_out_count])


def _rank(sample: Sample, seed: int) -> tuple[str, str]:
    name = sample.uri.rpartition("/")[2]
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).hexdigest(), sample.uri
