"""What a benchmark of the fit says: ways to fit, their seconds, and how they compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PAPER_EPOCHS = 300


@dataclass(frozen=True)
class Way:
    """One way to fit, as measured.

    Attributes:
        name: what it is.
        flow_epochs: that were run.
        mapper_epochs: that were run.
        seconds: of all that was run, from encoded pictures to heads.
        flow_epoch_s: seconds of a flow epoch, the first left out.
        mapper_epoch_s: the same of the mapper.
        image_auroc: after the epochs that were run, mean of the map.
        losses: of every epoch: of the flow, then source plus target.
        gpu_peak_mib: on a GPU the most memory that was taken.
    """

    name: str
    flow_epochs: int
    mapper_epochs: int
    seconds: float
    flow_epoch_s: float
    mapper_epoch_s: float
    image_auroc: float
    losses: list[float]
    gpu_peak_mib: float | None

    def seconds_at(self, epochs: int) -> float:
        """Extrapolated: what happens once, and so many epochs of both stages."""
        run_s = self.flow_epochs * self.flow_epoch_s + self.mapper_epochs * self.mapper_epoch_s
        once_s = max(0.0, self.seconds - run_s)
        return once_s + epochs * (self.flow_epoch_s + self.mapper_epoch_s)


@dataclass(frozen=True)
class FitSpeed:
    """All ways on the same pictures; ``straight`` is what the others are compared with.

    Attributes:
        category: whose pictures.
        pictures: that were fitted on.
        features_s: seconds of the one pass of the backbone, which every cached way contains.
        straight: the loop of the paper.
        same: cached features and the same settings.
        precise: the same in the configured precision; and perhaps compiled.
        default: the configured fit, all its epochs.
    """

    category: str
    pictures: int
    features_s: float
    straight: Way
    same: Way
    others: list[Way]
    default: Way

    @property
    def same_epochs_ratio(self) -> float:
        """How many times faster the best way is that runs the paper's 300 + 300 epochs, too."""
        fastest = min(way.seconds_at(PAPER_EPOCHS) for way in [self.same, *self.others])
        return self.straight.seconds_at(PAPER_EPOCHS) / fastest

    @property
    def default_ratio(self) -> float:
        """How many times faster the whole default fit is than 300 + 300 epochs of the loop."""
        return self.straight.seconds_at(PAPER_EPOCHS) / self.default.seconds

    @property
    def largest_loss_difference(self) -> float:
        """Between the loop and cached features with the same settings, over all epochs."""
        pairs = zip(self.straight.losses, self.same.losses, strict=True)
        return max(abs(a - b) for a, b in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "extrapolated_to_epochs": PAPER_EPOCHS,
            "straight_extrapolated_s": self.straight.seconds_at(PAPER_EPOCHS),
            "same_epochs_ratio": self.same_epochs_ratio,
            "default_ratio": self.default_ratio,
            "largest_loss_difference": self.largest_loss_difference,
        }


def fit_speed_rows(result: FitSpeed) -> list[tuple[object, ...]]:
    """A row per way, for ``FIT_SPEED_HEADER``."""
    loop_s = result.straight.seconds_at(PAPER_EPOCHS)
    rows: list[tuple[object, ...]] = []
    for way in [result.straight, result.same, *result.others]:
        total_s = way.seconds_at(PAPER_EPOCHS)
        rows.append(_row(way, f"{total_s:.0f} (extrapolated)", loop_s / total_s))
    rows.append(
        _row(result.default, f"{result.default.seconds:.0f} (all of it)", result.default_ratio)
    )
    return rows


FIT_SPEED_HEADER = (
    "way",
    "epochs run",
    "s/flow epoch",
    "s/mapper epoch",
    f"s for {PAPER_EPOCHS} + {PAPER_EPOCHS}, or all",
    "times faster",
    "image AUROC after the epochs run",
)


def _row(way: Way, total: str, ratio: float) -> tuple[object, ...]:
    return (
        way.name,
        f"{way.flow_epochs} + {way.mapper_epochs}",
        f"{way.flow_epoch_s:.2f}",
        f"{way.mapper_epoch_s:.2f}",
        total,
        f"{ratio:.1f}",
        way.image_auroc,
    )
