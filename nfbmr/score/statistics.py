"""What a run knows of the units that were finished: pictures, failures, bytes, seconds by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfbmr.score.forward_difference import NOT_COMPARED_BECAUSE, ForwardDifference
from nfbmr.score.stage_clock import CPU_COLUMNS, WALL_COLUMNS


@dataclass
class WorkDone:
    """Sums over all units that were finished in this session.

    Attributes:
        pictures: scored, with those that failed.
        failed: of them.
        encoded_bytes: that were read.
        seconds: worker seconds by stage, waiting included.
        cpu_seconds: CPU seconds by stage.
        difference: what fast forward passes changed, on the first pictures of each actor.
        not_compared: why the first actor could not tell, of those that could not.
    """

    pictures: int = 0
    failed: int = 0
    encoded_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WALL_COLUMNS, 0.0))
    cpu_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CPU_COLUMNS, 0.0))
    difference: ForwardDifference | None = None
    not_compared: str | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one unit, by the row that ``Scorer`` returned for it."""
        self.pictures += row["pictures"]
        self.failed += row["failed"]
        self.encoded_bytes += row["encoded_bytes"]
        for name in WALL_COLUMNS:
            self.seconds[name] += row[name]
        for name in CPU_COLUMNS:
            self.cpu_seconds[name] += row[name]
        self.not_compared = self.not_compared or row.get(NOT_COMPARED_BECAUSE)
        seen = ForwardDifference.from_columns(row)
        if seen is not None:
            self.difference = self.difference.merged(seen) if self.difference else seen
