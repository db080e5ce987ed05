"""Which normal pictures of a category are fitted on and which calibrate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from nfbmr.data.sample import Sample
from nfbmr.errors import DataError
from nfbmr.fit_settings import CalibrationSettings
from nfbmr.gate_settings import GateSettings

AUTOMATIC_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Pictures to fit on and pictures to calibrate with, both in a fixed order.

    Attributes:
        fit: the detector is fitted on these.
        held_out: these calibrate: none of ``fit``, or with folds exactly ``fit``, each scored by
            heads that were fitted on the other folds.
        folds: of the cross-fitting; 0 where pictures are held out.
        labelled: labelled test pictures, for the promotion gate alone.
    """

    fit: list[Sample]
    held_out: list[Sample]
    folds: int = 0
    labelled: list[Sample] = field(default_factory=list)

    @property
    def pictures(self) -> list[Sample]:
        """Every training picture once."""
        return self.fit if self.folds else [*self.fit, *self.held_out]


def split_normals(
    samples: Sequence[Sample], category: str, settings: CalibrationSettings, seed: int
) -> Split:
    """Hold out a share of a category's normal training pictures, or cross-fit where there are few.

    A picture's place follows from a hash of its name and the seed, so that tomorrow's new pictures
    do not move today's from one side to the other more than the share asks for. The name begins
    below the folder of the category's normals: where every folder in there has a ``top.jpg``, these
    are no more alike than others.

    Raises:
        DataError: the category has no normal training pictures, or so few that they cannot
            promise the false-alarm rate; the message says how many are needed.
    """
    normals = [s for s in samples if s.category == category and s.split == "train"]
    if not normals:
        raise DataError(
            f"Category {category!r} has no normal pictures to train on: put some where the layout "
            "expects them, or leave the category out with --categories."
        )
    needed = needed_to_calibrate(settings)
    ordered = sorted(normals, key=lambda sample: _rank(sample, seed))
    folds = _folds(len(normals), needed, settings)
    if folds:
        _check_folds(category, len(normals), folds, needed, settings)
        return Split(fit=ordered, held_out=ordered, folds=folds)
    held_out_count = _held_out_count(len(normals), settings)
    if held_out_count < needed or held_out_count >= len(normals):
        needed_normals = math.ceil(needed / settings.held_out_share - 1e-9)
        raise DataError(
            f"Category {category!r} has {len(normals)} normal pictures to train on, of which "
            f"calibration.held_out_share = {settings.held_out_share:g} holds out {held_out_count}. "
            f"A false-alarm rate of {settings.false_alarm_rate:g} needs {needed} held out: give it "
            f"at least {needed_normals} normal pictures, raise calibration.held_out_share, ask for "
            "a higher calibration.false_alarm_rate, or cross-fit with calibration.folds = 0."
        )
    return Split(fit=ordered[held_out_count:], held_out=ordered[:held_out_count])


def needed_to_calibrate(settings: CalibrationSettings) -> int:
    """So many normals must be held out to promise the false-alarm rate."""
    return math.ceil(1.0 / settings.false_alarm_rate - 1e-9) - 1


def topped_up(split: Split, unreadable: Collection[str], settings: CalibrationSettings) -> Split:
    """The split with pictures of ``fit`` in the place of held-out ones that cannot be read.

    Only as many as the false-alarm rate needs.

    Args:
        split: of a category.
        unreadable: URIs.
        settings: the rate.

    Raises:
        DataError: too few can be read to promise it.
    """
    readable = [sample for sample in split.held_out if sample.uri not in unreadable]
    missing = needed_to_calibrate(settings) - len(readable)
    if missing <= 0:
        return split
    spare = [sample for sample in split.fit if sample.uri not in unreadable]
    if split.folds or len(spare) <= missing:
        raise DataError(
            f"{len(readable)} of {len(split.held_out)} pictures to calibrate with can be read. A "
            f"false-alarm rate of {settings.false_alarm_rate:g} needs "
            f"{needed_to_calibrate(settings)}: mend them, give more normal pictures, or ask for a "
            "higher calibration.false_alarm_rate."
        )
    moved = spare[:missing]
    fit = [sample for sample in split.fit if sample not in moved]
    return replace(split, fit=fit, held_out=[*split.held_out, *moved])


def _held_out_count(normals: int, settings: CalibrationSettings) -> int:
    return min(settings.max_held_out, int(settings.held_out_share * normals))


def _folds(normals: int, needed: int, settings: CalibrationSettings) -> int:
    """Folds of the cross-fitting; 0 to hold out."""
    if settings.folds > 0:
        return settings.folds if settings.folds > 1 else 0
    few = normals < settings.cross_fit_below or _held_out_count(normals, settings) < needed
    return AUTOMATIC_FOLDS if few else 0


def _check_folds(
    category: str, normals: int, folds: int, needed: int, settings: CalibrationSettings
) -> None:
    if normals < max(needed, folds):
        raise DataError(
            f"Category {category!r} has {normals} normal pictures to train on (those that the "
            "layout keeps for the test not counted). A false-alarm rate of "
            f"{settings.false_alarm_rate:g} needs at least {needed} normal pictures, and "
            f"cross-fitting in {folds} folds at least {folds}: give it more, or ask for a higher "
            "calibration.false_alarm_rate."
        )


def labelled_pictures(
    samples: Sequence[Sample], category: str, settings: GateSettings
) -> list[Sample]:
    """A category's labelled test pictures for the promotion gate, where it may and can use them.

    Of more than ``settings.max_labelled`` a share is taken that stays the same from night to
    night, of each kind in proportion.

    Returns:
        None of them where there are fewer of a kind than ``settings.labelled_needed``.
    """
    test = [s for s in samples if s.category == category and s.split == "test"]
    defective = sorted((s for s in test if s.is_defective), key=lambda s: _rank(s, 0))
    normal = sorted((s for s in test if not s.is_defective), key=lambda s: _rank(s, 0))
    if not settings.labelled or min(len(defective), len(normal)) < settings.labelled_needed:
        return []
    share = min(1.0, settings.max_labelled / len(test))
    counts = [max(settings.labelled_needed, int(share * len(kind))) for kind in (normal, defective)]
    return normal[: counts[0]] + defective[: counts[1]]


def _rank(sample: Sample, seed: int) -> tuple[str, str]:
    text = f"{seed}:{sample.name}".encode("utf-8", "surrogateescape")  # A name need not be UTF-8.
    return hashlib.blake2b(text, digest_size=16).hexdigest(), sample.uri
