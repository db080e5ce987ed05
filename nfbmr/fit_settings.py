"""The settings of fitting and calibrating."""

from __future__ import annotations

from dataclasses import dataclass

from nfbmr.errors import ConfigError
from nfbmr.model.precision import PRECISIONS
from nfbmr.model.scoring import AGGREGATES

SCHEDULES = ("one-cycle", "constant")
FEATURES = ("auto", "resident", "streamed")


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the heads are fitted.

    The paper (section 4.2) uses 300 epochs each, batches of 8, constant learning rates of 2e-4
    (flow) and 3e-4 (mapper): ``preset = "paper"``. The defaults reach the same on cached features
    in a tenth of the epochs with the one-cycle schedule of Smith and Topin (2019).

    Attributes:
        flow_epochs: passes over the training features for the flow.
        mapper_epochs: passes for the mapper.
        batch_size: pictures per optimiser step.
        flow_learning_rate: Adam's rate for the flow; the peak where the schedule is ``one-cycle``.
        mapper_learning_rate: the same for the mapper.
        min_steps: where a category is so small that the epochs make fewer optimiser steps than
            this, epochs are added until they do.
        weight_decay: Adam's, for both.
        schedule: ``one-cycle`` or ``constant``.
        gradient_clip_norm: largest norm of a step's gradient; 0 leaves gradients as they are.
        precision: of the convolutions of flow and mapper, in fitting and in scoring: ``float32``
            or ``bfloat16`` (where the device computes with it); losses, log-determinants and maps
            are float32 in both.
        features: ``resident`` keeps the training features on the device, ``streamed`` reads them
            from the feature cache in every epoch, ``auto`` streams where they do not fit.
        feature_memory_mib: how much resident features may take; 0 is half of what is free on the
            device when the fit starts.
        compile: compile the step with ``torch.compile``; where there is no compiler it runs as it
            is. Off, because steps on a CPU were slower compiled (README, "Measured").
        early_stop_patience: a stage ends when its loss on normal pictures that it does not learn
            from has not fallen for so many epochs, and takes the best epoch's weights; 0 never
            ends early. For the constant schedule: one-cycle is at its best at its end.
        early_stop_share: share of the pictures to fit on that is kept for that. They are not those
            that calibrate: a score must not decide which weights it is judged with.
        trim_share: share of the pictures to fit on that is left out, the worst first, after a
            flow was fitted on all of them; then the fit begins anew. 0 leaves none out and costs
            nothing.
        trim_deviation: leave out only pictures whose score deviates from the median by so many
            robust standard deviations; 0 leaves out the whole share.
        seed: of initial weights, permutations of the data and split.
    """

    flow_epochs: int = 30
    mapper_epochs: int = 30
    batch_size: int = 16
    flow_learning_rate: float = 2e-3
    mapper_learning_rate: float = 3e-3
    min_steps: int = 300
    weight_decay: float = 1e-5
    schedule: str = "one-cycle"
    gradient_clip_norm: float = 1.0
    precision: str = "bfloat16"
    features: str = "auto"
    feature_memory_mib: int = 0
    compile: bool = False
    early_stop_patience: int = 0
    early_stop_share: float = 0.1
    trim_share: float = 0.0
    trim_deviation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"fit.precision = {self.precision!r}: expected one of {', '.join(PRECISIONS)}."
            )
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"fit.schedule = {self.schedule!r}: expected one of {', '.join(SCHEDULES)}."
            )
        if self.features not in FEATURES:
            raise ConfigError(
                f"fit.features = {self.features!r}: expected one of {', '.join(FEATURES)}."
            )
        for name in ("feature_memory_mib", "early_stop_patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"fit.{name} = {getattr(self, name)}: must not be negative.")
        if not 0.0 < self.early_stop_share < 1.0:
            raise ConfigError(
                f"fit.early_stop_share = {self.early_stop_share:g}: expected a share between 0 "
                "and 1, for example 0.1."
            )
        if not 0.0 <= self.trim_share < 0.5:
            raise ConfigError(
                f"fit.trim_share = {self.trim_share:g}: expected a share from 0 to below 0.5; "
                "where half of the pictures are not normal, nobody can tell which half."
            )
        if self.trim_deviation < 0:
            raise ConfigError(
                f"fit.trim_deviation = {self.trim_deviation:g}: must not be negative."
            )
        for name in ("flow_epochs", "mapper_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name} = {getattr(self, name)}: must be at least 1.")
        for name in ("flow_learning_rate", "mapper_learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"fit.{name} = {getattr(self, name)}: must be above 0.")
        if self.gradient_clip_norm < 0:
            raise ConfigError(
                f"fit.gradient_clip_norm = {self.gradient_clip_norm}: must be at least 0."
            )

    def epochs(self, stage: str, pictures: int) -> int:
        """Epochs of a stage (``flow`` or ``mapper``) for a category of so many pictures."""
        wanted: int = getattr(self, f"{stage}_epochs")
        steps_per_epoch = -(-pictures // self.batch_size)
        return max(wanted, -(-self.min_steps // steps_per_epoch))


AUTOMATIC = "auto"


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How scores get their meaning.

    Attributes:
        held_out_share: share of the normal training pictures that is not fitted on but scored for
            the calibration.
        max_held_out: never hold out more than this.
        folds: K ≥ 2 calibrates by cross-fitting: every normal picture is scored by heads that were
            fitted on the other folds, and the detector itself is fitted on all. 1 always holds
            out. 0 cross-fits in 5 folds where there are fewer than ``cross_fit_below`` normals or
            a held-out share could not promise the false-alarm rate.
        cross_fit_below: see ``folds``.
        false_alarm_rate: share of normal pictures that the threshold lets be called anomalous.
        aggregate: from map to image score: ``auto`` (chosen per category on held-out normals and
            synthetic defects cut into them) or the name of one.
    """

    held_out_share: float = 0.2
    max_held_out: int = 200
    folds: int = 0
    cross_fit_below: int = 60
    false_alarm_rate: float = 0.05
    aggregate: str = AUTOMATIC

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out_share < 1.0:
            raise ConfigError(
                f"calibration.held_out_share = {self.held_out_share}: expected a share between 0 "
                "and 1, for example 0.2."
            )
        for name in ("folds", "cross_fit_below"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"calibration.{name} = {getattr(self, name)}: must not be negative; 0 folds "
                    "choose by the number of pictures."
                )
        if not 0.0 < self.false_alarm_rate < 1.0:
            raise ConfigError(
                f"calibration.false_alarm_rate = {self.false_alarm_rate}: expected a share between "
                "0 and 1, for example 0.05."
            )
        if self.aggregate != AUTOMATIC and self.aggregate not in AGGREGATES:
            raise ConfigError(
                f"calibration.aggregate = {self.aggregate!r}: expected {AUTOMATIC!r} or one of "
                f"{', '.join(AGGREGATES)}."
            )
