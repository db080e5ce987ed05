"""Leaving out the training pictures that fit worst, before the fit proper.

A flow is fitted on all pictures. It alone is enough to see what is unlike the rest, and it cannot
copy its input as the mapper can. The fit proper then begins anew without what is left out:
statistics, flow and mapper. Pictures that are held out stay, whatever they look like: taking the
highest scores out of a calibration would promise a false-alarm rate that nobody gets.
"""

from __future__ import annotations

from dataclasses import replace

from nfbmr.config import Config
from nfbmr.model.heads import HeadsSettings
from nfbmr.train.fit import EpochLosses, Report

PILOT = "pilot"
"""What the epochs of this flow are reported as."""


def flow_alone(config: Config) -> HeadsSettings:
    """Settings of the heads that judge: the category's own flow, no mapper."""
    return replace(config.heads, mapper=replace(config.mapper, kind="none"))


def note_pilot(losses: list[EpochLosses], report: Report) -> Report:
    """Keep the losses of this flow for its state, and report them under another name."""

    def note(epoch: EpochLosses) -> None:
        losses.append(epoch)
        report(replace(epoch, stage=PILOT))

    return note
