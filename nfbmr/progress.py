"""Saying what a job does: lines with the time, counters that do not flood a log, tables."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from nfbmr.errors import without_logins

_TERMINAL_INTERVAL_S = 0.5
_LOG_INTERVAL_S = 30.0


class Progress:
    """Writes progress to a stream: rewritten lines on a terminal, a line now and then in a log.

    Args:
        stream: standard error by default, so that results on standard output stay clean.
        quiet: say nothing.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.started = time.monotonic()

    @property
    def on_terminal(self) -> bool:
        """Whether somebody may be watching: standard output and the stream are a terminal."""
        return not self.quiet and self.stream.isatty() and sys.stdout.isatty()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start; logins in addresses are blotted out."""
        if not self.quiet:
            elapsed_s = time.monotonic() - self.started
            print(f"[{elapsed_s:6.1f} s] {without_logins(text)}", file=self.stream, flush=True)

    @contextmanager
    def counter(
        self, what: str, total: int, drawn: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Count up to a total: yields a function that takes how many are done.

        A line comes now and then also while nothing is counted: whoever reads a log is to see
        that the job waits, and that it is alive.

        Args:
            what: is counted.
            total: how many there are.
            drawn: progress is shown by somebody else; only the last line is written.
        """
        terminal = self.stream.isatty()
        interval_s = _TERMINAL_INTERVAL_S if terminal else _LOG_INTERVAL_S
        started = time.monotonic()
        state = {"next": started + interval_s, "done": 0}
        end = "   \r" if terminal else "\n"

        def line() -> str:
            rate = state["done"] / max(1e-9, time.monotonic() - started)
            elapsed_s = time.monotonic() - self.started
            return f"[{elapsed_s:6.1f} s] {what}: {int(state['done'])}/{total}, {rate:.1f}/s"

        def look() -> None:
            if self.quiet or drawn or time.monotonic() < state["next"]:
                return
            state["next"] = time.monotonic() + interval_s
            print(line(), end=end, file=self.stream, flush=True)

        def count(done: int) -> None:
            state["done"] = done
            look()

        with _repeated(look, interval_s):
            yield count
        if not self.quiet:
            print(line() + ("   " if terminal else ""), file=self.stream, flush=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say now and then that something goes on that cannot be counted.

        Args:
            what: goes on.
        """
        interval_s = _LOG_INTERVAL_S

        def say() -> None:
            self.say(f"{what} …")

        with _repeated(say, interval_s):
            yield


@contextmanager
def _repeated(call: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call something every so often, in a thread of its own, while the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(every_s):
            call()

    thread = threading.Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows as aligned text; numbers to the right, floats with four digits, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    numeric = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
        for i in range(len(header))
    ]

    def line(values: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
