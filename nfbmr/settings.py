"""The settings of fitting, calibrating and running."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfbmr.errors import ConfigError
from nfbmr.model.precision import FORWARD_MODES, PRECISIONS
from nfbmr.model.scoring import AGGREGATES
from nfbmr.store_faults import PATIENCE_S

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
            is. Off, because a step on the CPU took a fifth longer compiled (README, "Measured").
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

IN_ACTORS = "actors"
IN_TASKS = "tasks"


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


MAP_TYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What the finished data set of a scoring run looks like.

    Attributes:
        rows_per_file: at most.
        mib_per_file: at most, reckoned with maps that do not compress.
        partition_by_category: a folder per category, named ``category=…`` as Hive does; the files
            then leave the column to the folder's name.
        map_type: of the anomaly map's values: ``float16``, or ``float32`` for readers without half
            precision, in twice the space.
    """

    rows_per_file: int = 1_000_000
    mib_per_file: int = 512
    partition_by_category: bool = False
    map_type: str = "float16"

    def __post_init__(self) -> None:
        for name in ("rows_per_file", "mib_per_file"):
            if getattr(self, name) < 1:
                raise ConfigError(f"run.output.{name} = {getattr(self, name)}: must be at least 1.")
        if self.map_type not in MAP_TYPES:
            raise ConfigError(
                f"run.output.map_type = {self.map_type!r}: expected one of {', '.join(MAP_TYPES)}."
            )


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """When a scoring run warns that a category's p-values are far from uniform.

    Attributes:
        max_ks: Kolmogorov-Smirnov statistic against uniform, 0..1.
        max_share_below: share of p-values below 0.01; without drift it is 0.01.
        min_pictures: a category with fewer scored pictures gets no warning.
    """

    max_ks: float = 0.2
    max_share_below: float = 0.1
    min_pictures: int = 100

    def __post_init__(self) -> None:
        for name in ("max_ks", "max_share_below"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"run.drift.{name} = {getattr(self, name):g}: expected a number from 0 to 1."
                )
        if self.min_pictures < 1:
            raise ConfigError(f"run.drift.min_pictures = {self.min_pictures}: must be at least 1.")


@dataclass(frozen=True, slots=True)
class NightSettings:
    """How a campaign over many categories runs; none of it changes what is learned.

    Attributes:
        pictures_per_worker: a category with more pictures to fit on gets several workers, which do
            every step together.
        workers_max: never more of them for one category than this.
        retries: how often a fit whose worker was lost starts again from its last state.
        checkpoint_interval_s: how often a fit keeps its state; 0 keeps it after every epoch.
        cache_gib: size of the feature cache beyond which what was not used for longest is removed;
            0 for no limit. What the campaign itself needs is never removed.
        worst_listed: so many training pictures that fit worst are listed per category.
    """

    pictures_per_worker: int = 10_000
    workers_max: int = 4
    retries: int = 2
    checkpoint_interval_s: float = 60.0
    cache_gib: float = 100.0
    worst_listed: int = 10

    def __post_init__(self) -> None:
        for name in ("pictures_per_worker", "workers_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"night.{name} = {getattr(self, name)}: must be at least 1.")
        for name in ("retries", "checkpoint_interval_s", "cache_gib", "worst_listed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"night.{name} = {getattr(self, name):g}: must not be negative.")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a job may use of the machine or cluster.

    Attributes:
        cpus_per_fit: cores of one category's fit; how many run at once follows from it. 0 shares
            the cores evenly among the categories, at least one each, at most a whole node.
        gpus_per_fit: share of a GPU of one fit, where the cluster has GPUs.
        cpus_per_actor: cores (threads) of one backbone actor on a cluster without GPUs.
        gpus_per_actor: share of a GPU of one backbone actor, where the cluster has GPUs.
        gpus: GPUs to count on where the cluster starts its GPU nodes only when they are asked for;
            0 counts those that are there when the job starts.
        actors_max: backbone actors at most; 0 means one per ``cpus_per_actor`` cores or GPU share
            that the cluster has now. More than that makes an autoscaling cluster grow.
        actors_min: backbone actors that stay even when there is little to do; 0 means
            ``actors_max``: the pool keeps its size.
        decode: who decodes in a scoring run: ``actors`` (encoded bytes travel between nodes), or
            ``tasks`` on any node (pixels travel: for nodes with GPUs that have too few cores).
        decode_threads: of one scoring actor; 0 means 1 without a GPU, else its share of the cores
            of the node.
        decode_batch_size: pictures that one decoding task reads at a time.
        batch_size: pictures in one forward pass of the backbone.
        forward: how a scoring run computes the backbone: see ``FORWARD_MODES``. ``auto`` keeps to
            the precision that the detector was calibrated with.
        compared_pictures: so many of each actor's first pictures are also scored by the plain
            network in float32, and the run says what the fast passes changed; 0 leaves that out.
        unit_size: pictures in one unit, the smallest piece of scoring work that is committed.
        heads_cache_mib: memory for the heads of the categories that an actor keeps loaded.
        stall_timeout_s: a scoring run in which no unit is finished for so long ends with an error.
        store_patience_s: how long a request that a store throttles, resets or leaves unanswered, or
            has no room for, is tried again.
        failure_budget: share of pictures that may fail before the job's exit code says so.
        training_failure_budget: share of a category's training pictures that may be unreadable.
        output: what the finished data set of a scoring run looks like.
        drift: when a scoring run warns about its p-values.
        registry_patience_s: how long a registry that cannot be reached is tried again before a
            finished detector is kept on disk instead.
    """

    cpus_per_fit: float = 0.0
    gpus_per_fit: float = 0.25
    cpus_per_actor: int = 1
    gpus_per_actor: float = 1.0
    gpus: int = 0
    actors_max: int = 0
    actors_min: int = 0
    decode: str = IN_ACTORS
    decode_threads: int = 0
    decode_batch_size: int = 32
    batch_size: int = 16
    forward: str = AUTOMATIC
    compared_pictures: int = 8
    unit_size: int = 64
    heads_cache_mib: int = 1024
    stall_timeout_s: float = 1800.0
    store_patience_s: float = PATIENCE_S
    failure_budget: float = 0.01
    training_failure_budget: float = 0.05
    output: OutputSettings = field(default_factory=OutputSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    registry_patience_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("cpus_per_actor", "decode_batch_size", "batch_size", "unit_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"run.{name} = {getattr(self, name)}: must be at least 1.")
        for name in ("gpus_per_fit", "gpus_per_actor", "stall_timeout_s", "store_patience_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"run.{name} = {getattr(self, name):g}: must be above 0.")
        for name in (
            "cpus_per_fit",
            "gpus",
            "actors_max",
            "actors_min",
            "decode_threads",
            "heads_cache_mib",
            "compared_pictures",
            "registry_patience_s",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"run.{name} = {getattr(self, name):g}: must not be negative.")
        if 0 < self.actors_max < self.actors_min:
            raise ConfigError(
                f"run.actors_min = {self.actors_min} is above run.actors_max = {self.actors_max}: "
                "make it at most as large."
            )
        if self.decode not in (IN_ACTORS, IN_TASKS):
            raise ConfigError(
                f"run.decode = {self.decode!r}: expected {IN_ACTORS!r} or {IN_TASKS!r}."
            )
        if self.forward not in FORWARD_MODES:
            raise ConfigError(
                f"run.forward = {self.forward!r}: expected one of {', '.join(FORWARD_MODES)}."
            )
        for name in ("failure_budget", "training_failure_budget"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"run.{name} = {getattr(self, name)}: expected a share from 0 to 1."
                )
