"""A line now and then in a log; nothing of ours between Ray's bars on a terminal."""

import io
import sys
import time

import pytest

import nfbmr.progress
from nfbmr.progress import Progress, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress(stream).counter("scored", 700) as count:
        for done in range(700):
            clock[0] += 0.125
            count(done + 1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "[  30.0 s] scored: 240/700, 8.0/s"
    assert lines[-1] == "[  87.5 s] scored: 700/700, 8.0/s"


def test_lines_come_also_while_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfbmr.progress, "_LOG_INTERVAL_S", 0.05)
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.counter("scored", 700) as count:
        count(7)
        time.sleep(0.5)
    with progress.busy("Listing"):
        time.sleep(0.5)
    lines = stream.getvalue().splitlines()
    assert sum("scored: 7/700" in line for line in lines) >= 4
    assert sum(line.endswith("Listing …") for line in lines) >= 3
    before = len(lines)
    time.sleep(0.2)
    assert len(stream.getvalue().splitlines()) == before


def test_a_terminal_is_rewritten_more_often(clock: list[float]) -> None:
    stream = Terminal()
    with Progress(stream).counter("scored", 100) as count:
        for done in range(100):
            clock[0] += 0.1
            count(done + 1)
    assert stream.getvalue().count("\r") > 10


def test_where_ray_draws_bars_only_the_last_line_is_ours(clock: list[float]) -> None:
    stream = Terminal()
    with Progress(stream).counter("scored", 100, drawn=True) as count:
        for done in range(100):
            clock[0] += 1.0
            count(done + 1)
    assert stream.getvalue().strip() == "[ 100.0 s] scored: 100/100, 1.0/s"


def test_a_terminal_is_one_only_if_both_streams_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert Progress(Terminal()).on_terminal
    assert not Progress(io.StringIO()).on_terminal
    assert not Progress(Terminal(), quiet=True).on_terminal
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not Progress(Terminal()).on_terminal


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert table([("a", 1.0), ("bcd", None)], ("name", "x")).splitlines() == [
        "name       x",
        "----  ------",
        "a     1.0000",
        "bcd        -",
    ]
