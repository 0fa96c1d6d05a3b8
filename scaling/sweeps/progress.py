"""Live progress of a sweep: runs done, tokens a second, time left, runs that diverged."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from scaling.sweeps.heartbeat import Pulse

PLAIN_SECONDS = 10.0  # between lines where there is no terminal
TOLD_SHARE, TOLD_SECONDS = 0.02, 60.0  # of the work, or in all, before time left is told: at first all is compiling


def clock_text(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Tally:
    """Counts of a sweep in progress. Work is weighed in FLOPs, so that time left is right when runs differ in size."""

    def __init__(self, runs: int, flops: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.runs, self.flops, self.clock = runs, flops, clock
        self.done = self.diverged = 0
        self.tokens = self.worked = 0.0
        self.begin = clock()

    def work(self, tokens: float, flops: float) -> None:
        """Count training done since the last call."""
        self.tokens += tokens
        self.worked += flops

    def skip(self, flops: float) -> None:
        """Take work off the total that an earlier process did."""
        self.flops -= flops

    def finish(self, runs: int, diverged: int) -> None:
        """Count runs that ended."""
        self.done += runs
        self.diverged += diverged

    def counts(self) -> dict[str, float]:
        """What a heartbeat says of them."""
        return {"runs": self.runs, "done": self.done, "diverged": self.diverged, "tokens": self.tokens,
                "flops": self.worked, "flops_total": self.flops, "seconds": self.clock() - self.begin}

    def line(self) -> str:
        """One line for a person."""
        elapsed = max(self.clock() - self.begin, 1e-9)
        told = self.worked and (self.worked >= TOLD_SHARE * self.flops or elapsed >= TOLD_SECONDS)
        left = max(elapsed * (self.flops / self.worked - 1), 0.0) if told else None
        if self.done == self.runs:
            left = 0.0
        return (f"{self.done}/{self.runs} runs, {self.tokens / elapsed:,.0f} tokens/s, "
                f"{clock_text(left) + ' left' if left is not None else 'starting'}, {self.diverged} diverged")


@contextlib.contextmanager
def shown(tally: Tally, folder: Path) -> Iterator[Callable[[], None]]:
    """Progress for the person who started the sweep, and a heartbeat in `folder` for those who watch it; yields a
    function to call after each change.
    """
    with beating(tally, folder) as beat, printed(tally) as say:
        def refresh() -> None:
            say()
            beat()

        yield refresh


@contextlib.contextmanager
def beating(tally: Tally, folder: Path) -> Iterator[Callable[[], None]]:
    """A heartbeat in `folder` alone; yields a function to call after each change."""
    pulse = Pulse(folder, tally.counts, tally.clock)
    pulse.beat()
    end = "ended"
    try:
        yield pulse.beat
    except BaseException as error:
        end = type(error).__name__
        raise
    finally:
        pulse.beat(end)


@contextlib.contextmanager
def printed(tally: Tally) -> Iterator[Callable[[], None]]:
    """A live bar on a terminal, else a line every few seconds."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        last = [-math.inf]

        def say() -> None:
            if tally.clock() - last[0] >= PLAIN_SECONDS:
                last[0] = tally.clock()
                print(tally.line(), file=sys.stderr, flush=True)

        yield say
        print(tally.line(), file=sys.stderr, flush=True)
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task(tally.line(), total=tally.flops or 1.0)
        yield lambda: bar.update(task, description=tally.line(), completed=tally.worked)
