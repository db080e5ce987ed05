"""What a finished run says of itself: as values, as JSON, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nfbmr import storage
from nfbmr.errors import FailureBudgetError
from nfbmr.progress import table
from nfbmr.score.forward_difference import ForwardDifference
from nfbmr.score.schema import LISTING
from nfbmr.settings import RunSettings

SUMMARY = "_summary.json"
_SOURCES_NAMED = 5

_OF_THE_PLAN = frozenset(
    {
        *("changed", "listing", "no_category", "no_model"),
        *("empty", "too_large", "truncated", "unreadable", "unsupported"),
    }
)
"""Kinds of errors that stay what they are while a run's files and models do."""


@dataclass(frozen=True)
class ScoringSummary:
    """What a finished run says of itself.

    Attributes:
        output: where the data set is.
        run_id: of the run.
        pictures: rows.
        failed: rows with an error.
        failed_by_kind: the same by ``error_kind``.
        models: version per category.
        drift: ``CategoryDrift`` per category, as plain values.
        scored_now: pictures that were scored in this session; the others were there already.
        elapsed_s: of this session, from the plan to the finished data set.
        fetched_bytes: encoded bytes that were read in this session.
        seconds_by_stage: summed over all workers, of the units scored in this session.
        cpu_seconds_by_stage: of them, what the processors worked.
        forward: what fast forward passes changed (``ForwardDifference``), where it was measured.
        damaged_sources: sources of which something could not be listed, and how many rows say so.
    """

    output: str
    run_id: str
    pictures: int
    failed: int
    failed_by_kind: dict[str, int]
    models: dict[str, str]
    drift: dict[str, dict[str, Any]]
    scored_now: int
    elapsed_s: float
    fetched_bytes: int
    seconds_by_stage: dict[str, float]
    cpu_seconds_by_stage: dict[str, float]
    forward: dict[str, Any] | None = None
    damaged_sources: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_earlier(cls, run: Mapping[str, Any]) -> ScoringSummary:
        """The summary of a run that an earlier session finished.

        Args:
            run: ``as_dict`` of that session's summary.
        """
        counts = {"scored_now": 0, "elapsed_s": 0.0, "fetched_bytes": 0}
        return cls(**{**run, **counts, "seconds_by_stage": {}, "cpu_seconds_by_stage": {}})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def pictures_per_s(self) -> float | None:
        """Pace of this session, start and merge included; None where it scored nothing."""
        return self.scored_now / self.elapsed_s if self.scored_now and self.elapsed_s else None

    def check_failures(self, settings: RunSettings) -> None:
        """Refuse a run of which more pictures failed, or more sources are damaged, than may be.

        Args:
            settings: ``failure_budget`` and ``damaged_sources``.

        Raises:
            FailureBudgetError: naming the rows to look at.
        """
        sentences = [
            *self._damage(settings.damaged_sources),
            *self._losses(settings.failure_budget),
        ]
        if sentences:
            where = (
                f"All other scores are in {self.output}; its rows with status = 'error' say why."
            )
            raise FailureBudgetError(" ".join([*sentences, where]))

    def _losses(self, budget: float) -> list[str]:
        if self.failed <= budget * self.pictures:
            return []
        counts = sorted(self.failed_by_kind.items(), key=lambda item: -item[1])
        kinds = ", ".join(f"{kind} {count}" for kind, count in counts)
        return [
            f"{self.failed} of {self.pictures} pictures have no score ({kinds}), more than "
            f"run.failure_budget = {budget:g} allows. {self._remedy()}"
        ]

    def _damage(self, allowed: int) -> list[str]:
        """One row may stand for all that a damaged archive hides: the budget says nothing of it."""
        # A run that an older version finished does not name them.
        count = max(len(self.damaged_sources), min(1, self.failed_by_kind.get(LISTING, 0)))
        if count <= allowed:
            return []
        first = [*self.damaged_sources][:_SOURCES_NAMED]
        more = [f"{count - len(first)} more"] if count > len(first) > 0 else []
        names = f" ({', '.join([*first, *more])})" if first else ""
        return [
            f"Damaged sources: {count}{names}, more than run.damaged_sources = {allowed} allows. "
            "What is damaged there hides pictures that nobody counted: mend it, and score these "
            "sources into another output."
        ]

    def _remedy(self) -> str:
        """What helps against the kinds of errors that there are."""
        kinds = set(self.failed_by_kind)
        words = []
        if kinds - _OF_THE_PLAN:
            words.append(
                "When the cause is mended, jobs/score.py --retry-failed scores them again."
            )
        if kinds & _OF_THE_PLAN:
            words.append(
                f"Those of kind {', '.join(sorted(kinds & _OF_THE_PLAN))} stay errors in this run, "
                "whose models and files are pinned: score them in a run of their own, with another "
                "--output."
            )
        return " ".join(words)

    def warnings(self) -> list[str]:
        """Sentences on categories whose p-values are past a limit."""
        return [
            f"category {name!r} drifts: {values['warning']} (n = {values['calibration_size']})"
            for name, values in self.drift.items()
            if values["warning"]
        ]


def write_summary(summary: ScoringSummary) -> None:
    """Write the summary beside the data set, as ``_summary.json``."""
    data = json.dumps(summary.as_dict(), indent=1).encode()
    storage.write_atomically(storage.join(summary.output, SUMMARY), data)


def summary_tables(summary: ScoringSummary) -> str:
    """The tables that end a scoring run: the run, and the drift by category."""
    run = table(_run_rows(summary), ("scoring run", summary.run_id))
    return f"{run}\n\n{_drift_table(summary)}" if summary.drift else run


def _run_rows(summary: ScoringSummary) -> list[tuple[str, object]]:
    pace = summary.pictures_per_s
    rows: list[tuple[str, object]] = [
        ("pictures", summary.pictures),
        ("with an error", summary.failed),
        *((f"  {kind}", count) for kind, count in sorted(summary.failed_by_kind.items())),
        ("scored now", summary.scored_now),
        ("pictures/s", None if pace is None else f"{pace:.1f}"),
        ("read", f"{summary.fetched_bytes / 2**20:.1f} MiB"),
        ("models", ", ".join(f"{name} v{v}" for name, v in summary.models.items())),
        ("output", summary.output),
    ]
    if summary.forward is not None:
        difference = ForwardDifference(**summary.forward)
        rows += [
            ("forward passes", difference.numerics),
            ("largest change of a score", f"{difference.score_share:.2%}"),
            ("largest change of a p-value", f"{difference.p_value:.2g}"),
        ]
    total_s = sum(summary.seconds_by_stage.values())
    for stage, seconds in summary.seconds_by_stage.items() if total_s > 0 else ():
        rows.append((f"worker time, {stage[:-2]}", f"{seconds:.1f} s ({seconds / total_s:.0%})"))
    return rows


def _drift_table(summary: ScoringSummary) -> str:
    header = (
        "p-values of",
        "n",
        "floor",
        "pictures",
        "KS",
        "chance",
        "< 0.01",
        "expected",
        "drift",
    )
    rows = [
        (
            name,
            values["calibration_size"],
            values["p_value_floor"],
            values["pictures"],
            values["ks"],
            values["chance"],
            values["share_below_low"],
            values["expected_below_low"],
            "yes" if values["warning"] else "no",
        )
        for name, values in summary.drift.items()
    ]
    return table(rows, header)
