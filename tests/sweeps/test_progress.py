"""Progress lines by an injected clock, with and without a terminal."""

import io
import sys
from pathlib import Path

import pytest

from scaling.sweeps import progress
from scaling.sweeps.progress import Tally, shown


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_line_counts_runs_rate_time_left_and_diverged() -> None:
    clock = Clock()
    tally = Tally(8, 1e12, clock)
    assert tally.line() == "0/8 runs, 0 tokens/s, starting, 0 diverged"
    clock.now += 10
    tally.work(3_456, 1e10)
    assert tally.line() == "0/8 runs, 346 tokens/s, starting, 0 diverged", "what was compiling tells no time left"
    tally.work(120_000, 2.4e11)
    tally.finish(2, 1)
    assert tally.line() == "2/8 runs, 12,346 tokens/s, 0:30 left, 1 diverged"
    clock.now += 30
    tally.work(0, 7.5e11)
    tally.finish(6, 0)
    assert tally.line() == "8/8 runs, 3,086 tokens/s, 0:00 left, 1 diverged"


@pytest.mark.parametrize(("seconds", "shown_as"), [
    (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (93784, "26:03:04")])
def test_time_left_is_written_as_a_clock(seconds: float, shown_as: str) -> None:
    clock = Clock()
    tally = Tally(1, 2.0, clock)
    clock.now += seconds
    tally.work(0, 1.0)
    assert f" {shown_as} left" in tally.line()


def test_time_left_is_told_after_a_minute_whatever_is_done() -> None:
    clock = Clock()
    tally = Tally(1, 1e6, clock)
    tally.work(10, 1e4)
    clock.now += 59
    assert ", starting, " in tally.line()
    clock.now += 1
    assert ", 1:39:00 left, " in tally.line()


def test_without_a_terminal_a_line_comes_every_few_seconds_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clock = Clock()
    tally = Tally(2, 100.0, clock)
    with shown(tally, tmp_path) as refresh:
        for _ in range(25):
            refresh()
            clock.now += 1.0
            tally.work(10, 1.0)
        tally.finish(2, 0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[2] for line in lines] == ["starting", "1:30 left", "1:20 left", "0:00 left"]
    assert lines[-1] == "2/2 runs, 10 tokens/s, 0:00 left, 0 diverged"
    assert all(line.isprintable() for line in lines)


def test_on_a_terminal_one_line_is_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    tally = Tally(3, 10.0, Clock())
    with progress.shown(tally, tmp_path) as refresh:
        tally.work(5, 10.0)
        tally.finish(3, 1)
        refresh()
    assert "3/3 runs" in terminal.getvalue()
    assert "1 diverged" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
