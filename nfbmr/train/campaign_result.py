"""One row of the table that ends a campaign."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nfbmr import plain_values
from nfbmr.errors import NfbmrError
from nfbmr.train.worst import WorstPicture

REGISTERED = "registered"
FAILED = "failed"
UNCHANGED = "unchanged"
NOT_STARTED = "not started"


@dataclass
class CategoryResult:
    """What became of one category.

    Attributes:
        category: the product type.
        outcome: ``registered``, ``failed``, ``unchanged`` (its champion, or the one that
            was rolled back or that the gate refused, was fitted on the same pictures with the same
            settings) or ``not started`` (the campaign's time was over, or another process took the
            night over).
        version: of the registered model, or None.
        pictures: normal pictures that were fitted on.
        held_out: normal pictures that calibrate.
        unreadable: training pictures that were left out because they cannot be read.
        trimmed: training pictures that were left out because they fit worst.
        aggregate: how maps become image scores.
        synthetic_auroc: of that aggregate on synthetic defects, where measured.
        flow_loss: of the last epoch; of a fit that failed, the last one that is known of.
        mapper_loss: source plus target, of the last epoch.
        metrics: further numbers by name.
        worst: training pictures that fit worst, the worst first (``WorstPicture``).
        seconds: of the fit; of one that failed, from its start to its failure.
        decision: the gate's sentence, or the error.
        promoted: whether the version is champion now; None without a version.
        gate: the numbers of the gate's decision.
        finished_at: when it was registered, in ISO 8601; empty where it was not.
    """

    category: str
    outcome: str
    version: str | None = None
    pictures: int = 0
    held_out: int = 0
    unreadable: int = 0
    trimmed: int = 0
    aggregate: str | None = None
    synthetic_auroc: float | None = None
    flow_loss: float | None = None
    mapper_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    worst: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    decision: str = ""
    promoted: bool | None = None
    gate: dict[str, float | int | str | None] = field(default_factory=dict)
    finished_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> CategoryResult:
        """What ``as_dict`` gave.

        Raises:
            ValueError: a part is not known: another version of nfbmr wrote it.
            TypeError: a part is missing or of another type.
            KeyError: a part of a picture that fits badly is missing.
        """
        plain_values.only(row, (each.name for each in fields(cls)))
        result = cls(**row)
        for name in ("category", "outcome", "decision", "finished_at"):
            plain_values.text(getattr(result, name))
        for name in ("version", "aggregate"):
            if getattr(result, name) is not None:
                plain_values.text(getattr(result, name))
        for name in ("pictures", "held_out", "unreadable", "trimmed"):
            plain_values.count(getattr(result, name))
        for name in ("synthetic_auroc", "flow_loss", "mapper_loss"):
            if getattr(result, name) is not None:
                plain_values.number(getattr(result, name))
        plain_values.number(result.seconds)
        plain_values.numbers(result.metrics)
        plain_values.mapping(result.gate)
        for worst in plain_values.items(result.worst):
            WorstPicture.from_dict(worst)
        return result


class CampaignRows(list[CategoryResult]):
    """A row per category, and what ended the campaign before it was through.

    Args:
        rows: of all categories.
        error: of which the rows are only a part: the store or the weights failed for all that was
            to be fitted, or another process took the night over. None where nothing did.
    """

    def __init__(self, rows: Iterable[CategoryResult], error: NfbmrError | None = None) -> None:
        super().__init__(rows)
        self.error = error


def not_reached(category: str, *, is_lost: bool = False) -> CategoryResult:
    """The row of a category that was not begun.

    Args:
        category: its name.
        is_lost: whether another process has the night now; else the campaign's time was over.
    """
    reason = "its time did not come in this run: the same command goes on with it first"
    if is_lost:
        reason = "another process has taken this night over, and goes on with it"
    return CategoryResult(category, NOT_STARTED, decision=reason)
