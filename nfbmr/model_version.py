"""What the registry hands out and takes in, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version of one category's detector, by concrete number.

    Attributes:
        category: the product type.
        name: the registered model, ``nfbmr-<category>``.
        version: its number, as MLflow gives it.
        run_id: the run that logged it.
        source: where the detector's files lie.
        aliases: of this version at the time of looking.
        tags: of this version.
        created_at: seconds since 1970.
    """

    category: str
    name: str
    version: str
    run_id: str
    source: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created_at: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric at one step (an epoch)."""

    name: str
    value: float
    step: int
