"""Counters of a scoring run for Prometheus, through Ray's metrics.

Every scoring actor counts the units it commits; each node's agent adds them up and offers them on
the node's metrics port, with ``ray_`` before the name. The agent comes with ``ray[default]``, as in
Ray's own images: where it is missing (a plain installation on one machine) counting costs nothing
and is seen by nobody.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

from ray.util.metrics import Counter

from nfbmr.score.stage_clock import STAGES

SCORED = "nfbmr_pictures_scored"
FAILED = "nfbmr_pictures_failed"
FETCHED = "nfbmr_fetched_bytes"
SECONDS = "nfbmr_stage_seconds"
CPU_SECONDS = "nfbmr_stage_cpu_seconds"


class ScoringMetrics:
    """The counters of one scoring actor: they only ever rise."""

    def __init__(self) -> None:
        category = ("category",)
        self._scored = Counter(SCORED, "pictures with a score, committed", category)
        self._failed = Counter(
            FAILED, "error rows by error_kind, committed", (*category, "error_kind")
        )
        self._fetched = Counter(FETCHED, "encoded bytes of pictures, bytes", category)
        self._seconds = {
            SECONDS: Counter(SECONDS, "worker time by stage, waiting included, s", ("stage",)),
            CPU_SECONDS: Counter(CPU_SECONDS, "CPU time by stage, s", ("stage",)),
        }

    def count(
        self, category: str, statistics: Mapping[str, Any], error_kinds: Sequence[str]
    ) -> None:
        """Count a unit that was just committed.

        Args:
            category: of its pictures; empty if none is known.
            statistics: of the unit: ``pictures``, ``encoded_bytes``, and seconds by stage.
            error_kinds: of its error rows.
        """
        tags = {"category": category}
        # Ray's counters refuse to be raised by nothing.
        if statistics["pictures"] > len(error_kinds):
            self._scored.inc(statistics["pictures"] - len(error_kinds), tags)
        for kind, failed in Tally(error_kinds).items():
            self._failed.inc(failed, {**tags, "error_kind": kind})
        if statistics["encoded_bytes"] > 0:
            self._fetched.inc(statistics["encoded_bytes"], tags)
        for stage in STAGES:
            for name, column in ((SECONDS, f"{stage}_s"), (CPU_SECONDS, f"{stage}_cpu_s")):
                if statistics[column] > 0:
                    self._seconds[name].inc(statistics[column], {"stage": stage})
