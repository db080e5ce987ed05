"""The settings of scoring, of its output and of a night."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfbmr.errors import ConfigError
from nfbmr.fit_settings import AUTOMATIC
from nfbmr.model.precision import FORWARD_MODES
from nfbmr.store_faults import PATIENCE_S

IN_ACTORS = "actors"
IN_TASKS = "tasks"


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
        resume_hours: so long after its start an unfinished night is gone on with by the same
            command. After that the command begins a new one, in which finished categories are
            fitted again, and unfinished fits go on from their last state.
    """

    pictures_per_worker: int = 10_000
    workers_max: int = 4
    retries: int = 2
    checkpoint_interval_s: float = 60.0
    cache_gib: float = 100.0
    worst_listed: int = 10
    resume_hours: float = 20.0

    def __post_init__(self) -> None:
        for name in ("pictures_per_worker", "workers_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"night.{name} = {getattr(self, name)}: must be at least 1.")
        for name in (
            "retries",
            "checkpoint_interval_s",
            "cache_gib",
            "worst_listed",
            "resume_hours",
        ):
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
        gpus: GPUs to count on where the cluster starts its GPU nodes only when they are asked for,
            or where other jobs take the rest; 0 counts those that are there.
        actors_max: backbone actors at most; 0 means one per ``cpus_per_actor`` cores or GPU share
            that the cluster has now. More than that makes an autoscaling cluster grow.
        actors_min: backbone actors that stay even when there is little to do; 0 means
            ``actors_max``: the pool keeps its size. On a cluster without GPUs never more than one
            per ``cpus_per_actor`` cores that it has now: the others come as it grows.
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
        stall_timeout_s: a scoring run in which no unit is finished for so long ends with an error;
            so do the categories whose features a night computes. Decoding the pictures of a unit
            takes a part of it: where some take very long, the others get less.
        store_patience_s: how long a request that a store throttles, resets or leaves unanswered, or
            has no room for, is tried again.
        failure_budget: share of pictures that may fail before the job's exit code says so.
        damaged_sources: so many sources (archives, manifests, folders) may have places that cannot
            be listed before the job's exit code says so: such a place is one error row, but may
            hide any number of pictures.
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
    damaged_sources: int = 0
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
            "damaged_sources",
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
