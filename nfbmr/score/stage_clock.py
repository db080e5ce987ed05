"""Wall-clock and CPU seconds of the stages of a unit's work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("fetch", "decode", "forward", "heads", "commit")
"""What happens to a unit, in this order."""

WALL_COLUMNS = tuple(f"{stage}_s" for stage in STAGES)
CPU_COLUMNS = tuple(f"{stage}_cpu_s" for stage in STAGES)


class StageClock:
    """Adds up seconds by stage; ``seconds`` has the names of ``WALL_COLUMNS`` and ``CPU_COLUMNS``.

    Wall-clock seconds include waiting: for a store, for the other threads of the process, for a
    core. CPU seconds are the calling thread's own, unless said otherwise.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*WALL_COLUMNS, *CPU_COLUMNS), 0.0)

    @contextmanager
    def whole_process(self, name: str) -> Iterator[None]:
        """Time a block with the CPU seconds of all threads: the process does nothing else."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - wall_s, time.process_time() - cpu_s)

    @contextmanager
    def stage(self, name: str, threads: int = 1) -> Iterator[None]:
        """Time a block.

        Args:
            name: one of ``STAGES``.
            threads: that work for the calling one inside PyTorch; each is taken to be as busy.
        """
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            own_s = time.thread_time() - cpu_s
            self.add(name, time.perf_counter() - wall_s, own_s * threads)

    def add(self, name: str, wall_s: float, cpu_s: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[f"{name}_s"] += wall_s
        self.seconds[f"{name}_cpu_s"] += cpu_s
