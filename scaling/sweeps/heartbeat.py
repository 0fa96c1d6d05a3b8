"""What a runner leaves for those who watch: `progress/<host>-<process>.json` in the workdir, rewritten as it works."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling.files import StoreError

LOG = logging.getLogger("scaling")
WRITE_SECONDS = 1.0  # between two writes
RECENT_SECONDS = 60.0  # over which the present speed is taken
SILENT_SECONDS = 60.0  # a runner not seen for so long, nor for three of its own longest pauses, is called silent
WORKING = ""  # value of `end` until there is one


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """One runner at one moment. Times in Unix seconds by its own clock; `flops` done of `flops_total` in this process.

    `pause`: the longest time between two signs of life. `end`: empty while at work, then `ended` or the error's name.
    """

    host: str
    process: int
    started: float
    seen: float
    pause: float
    runs: int
    done: int
    diverged: int
    tokens: float
    flops: float
    flops_total: float
    seconds: float
    tokens_per_second: float
    flops_per_second: float
    end: str

    def age(self, now: float) -> float:
        """Seconds since the runner was seen; 0 for one whose clock runs ahead."""
        return max(now - self.seen, 0.0)

    def state(self, now: float) -> str:
        """`working`, `silent` (killed, cut off or busy for long), or how it ended."""
        if self.end:
            return self.end
        return "silent" if self.age(now) > max(SILENT_SECONDS, 3 * self.pause) else "working"

    @property
    def runs_per_hour(self) -> float:
        """Runs that ended, by the time this process has worked."""
        return 3600 * self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def mean_speeds(self) -> tuple[float, float]:
        """Tokens and FLOPs a second over all its time, compilation included."""
        return (self.tokens / self.seconds, self.flops / self.seconds) if self.seconds > 0 else (0.0, 0.0)

    @property
    def seconds_left(self) -> float:
        """At the present speed; nan before there is one."""
        left = max(self.flops_total - self.flops, 0.0)
        if self.done >= self.runs:
            return 0.0
        return left / self.flops_per_second if self.flops_per_second > 0 else math.nan


def read_heartbeats(folder: Path) -> list[Heartbeat]:
    """Every runner that left a file, in order of their starts. Raises StoreError naming a file that is not one."""
    found = [_read(path) for path in folder.glob("*.json") if not path.name.startswith(".")]
    return sorted(found, key=lambda beat: (beat.started, beat.host, beat.process))


def _read(path: Path) -> Heartbeat:
    try:
        record = json.loads(path.read_bytes())
        return Heartbeat(**{field.name: _typed(record[field.name], str(field.type), field.name)
                            for field in dataclasses.fields(Heartbeat)})
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise StoreError(f"{path}: not a runner's progress file ({type(error).__name__}: {error}); remove it, nothing "
                         "else depends on it") from error


def _typed(value: Any, wanted: str, name: str) -> Any:
    if wanted == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != wanted or (wanted == "float" and not math.isfinite(value)):
        raise ValueError(f"{name}: expected {'a finite float' if wanted == 'float' else wanted}, not {value!r:.50}")
    return value


class Pulse:
    """Writes a runner's heartbeats. `record()` gives the counts of `Heartbeat`, runs to seconds, at the moment.

    A file that cannot be written is warned of once and never ends the sweep: nothing follows from it.
    """

    def __init__(self, folder: Path, record: Callable[[], dict[str, float]], clock: Callable[[], float]) -> None:
        self.path = folder / f"{socket.gethostname()}-{os.getpid()}.json"
        self.record, self.clock = record, clock
        self.started, self.pause = time.time(), 0.0
        self._last = clock()
        self._written = -math.inf
        self._warned = False
        self._recent: collections.deque[tuple[float, float, float]] = collections.deque()

    def beat(self, end: str = WORKING) -> None:
        """A sign of life; written when the last one is old enough, and at the end."""
        now = self.clock()
        self.pause, self._last = max(self.pause, now - self._last), now
        if now - self._written < WRITE_SECONDS and not end:
            return
        self._written = now
        counts = self.record()
        tokens_per_second, flops_per_second = self._speed(now, counts["tokens"], counts["flops"])
        beat = {"host": socket.gethostname(), "process": os.getpid(), "started": self.started, "seen": time.time(),
                "pause": self.pause, **counts, "tokens_per_second": tokens_per_second,
                "flops_per_second": flops_per_second, "end": end}
        try:
            self._write(json.dumps(beat, allow_nan=False))
        except OSError as error:
            if not self._warned:
                LOG.warning("%s: progress cannot be written (%s), so this runner cannot be watched", self.path, error)
            self._warned = True

    def _speed(self, now: float, tokens: float, flops: float) -> tuple[float, float]:
        """Tokens and FLOPs a second over the last minute."""
        recent = self._recent
        recent.append((now, tokens, flops))
        while len(recent) > 2 and now - recent[1][0] >= RECENT_SECONDS:
            recent.popleft()
        begin, tokens_before, flops_before = recent[0]
        seconds = now - begin
        return ((tokens - tokens_before) / seconds, (flops - flops_before) / seconds) if seconds > 0 else (0.0, 0.0)

    def _write(self, text: str) -> None:
        """Whole or not at all for readers; not forced to disk, since a power cut may take it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text(text)
        os.replace(temporary, self.path)
