"""What a runner leaves for those who watch, and what readers make of it by their own clock."""

import dataclasses
import json
import logging
import os
from pathlib import Path

import pytest

from scaling.store import StoreError
from scaling.sweeps import heartbeat
from scaling.sweeps.heartbeat import Heartbeat, Pulse, read_heartbeats
from scaling.sweeps.progress import Tally, shown

BEAT = Heartbeat("node", 7, 1000.0, 2000.0, 4.0, 10, 3, 1, 6e6, 2e12, 8e12, 500.0, 9e3, 3e9, "")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat.time, "time", lambda: 1e9 + clock.now)
    return clock


def only(folder: Path) -> Heartbeat:
    found, = read_heartbeats(folder)
    return found


def test_a_sweep_leaves_its_counts_and_its_end(tmp_path: Path, clock: Clock) -> None:
    tally = Tally(4, 1e12, clock)
    with shown(tally, tmp_path) as refresh:
        assert only(tmp_path).state(1e9 + 50) == "working"
        clock.now += 10
        tally.work(1000, 2.5e11)
        tally.finish(1, 1)
        refresh()
        beat = only(tmp_path)
        assert (beat.process, beat.runs, beat.done, beat.diverged) == (os.getpid(), 4, 1, 1)
        assert (beat.tokens_per_second, beat.flops_per_second) == (100.0, 2.5e10)
        assert beat.seconds_left == 30.0
        assert beat.runs_per_hour == 360.0
        assert beat.pause == 10.0
    assert only(tmp_path).state(1e9 + 1e6) == "ended"
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_an_error_is_named_as_the_end(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(MemoryError), shown(Tally(1, 1.0, clock), tmp_path):
        raise MemoryError
    assert only(tmp_path).end == "MemoryError"


def test_it_is_written_once_a_second_at_most(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []
    monkeypatch.setattr(Pulse, "_write", lambda self, text: written.append(clock.now))
    pulse = Pulse(tmp_path, Tally(1, 1.0, clock).counts, clock)
    for _ in range(41):
        pulse.beat()
        clock.now += 0.25
    pulse.beat("ended")
    assert written == [50.0 + second for second in range(11)] + [clock.now]


def test_speed_is_that_of_the_last_minute(tmp_path: Path, clock: Clock) -> None:
    tally = Tally(1, 1e9, clock)
    pulse = Pulse(tmp_path, tally.counts, clock)
    for tokens in [10] * 100 + [30] * 100:
        pulse.beat()
        clock.now += 1.0
        tally.work(tokens, 100 * tokens)
    pulse.beat()
    assert only(tmp_path).tokens_per_second == 30.0
    assert only(tmp_path).mean_speeds == (20.0, 2000.0)


@pytest.mark.parametrize(("age", "pause", "state"), [
    (-500.0, 0.0, "working"),  # the runner's clock runs ahead
    (59.0, 4.0, "working"), (61.0, 4.0, "silent"), (299.0, 100.0, "working"), (301.0, 100.0, "silent")])
def test_a_dead_runner_does_not_show_as_live(age: float, pause: float, state: str) -> None:
    beat = dataclasses.replace(BEAT, pause=pause)
    assert beat.state(beat.seen + age) == state
    assert beat.age(beat.seen + age) == max(age, 0.0)


def test_runners_come_in_order_of_their_starts(tmp_path: Path) -> None:
    beats = [dataclasses.replace(BEAT, process=process, started=float(-process)) for process in range(5)]
    for beat in beats:
        (tmp_path / f"{beat.host}-{beat.process}.json").write_text(json.dumps(dataclasses.asdict(beat)))
    (tmp_path / ".node-9.json").write_text("half a li")
    assert read_heartbeats(tmp_path) == beats[::-1]
    assert read_heartbeats(tmp_path / "absent") == []


@pytest.mark.parametrize(("change", "message"), [
    ({"seen": "now"}, "seen: expected a finite float, not 'now'"), ({"done": 1.5}, "done: expected int, not 1.5"),
    ({"tokens": float("nan")}, "tokens: expected a finite float, not nan"),
    ({"end": None}, "end: expected str, not None")])
def test_a_file_that_is_none_is_named(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "a-1.json").write_text(json.dumps(dataclasses.asdict(BEAT) | change))
    with pytest.raises(StoreError, match=rf"a-1\.json: not a runner's progress file .*{message}.*; remove it, nothing"):
        read_heartbeats(tmp_path)


def test_what_cannot_be_written_is_warned_of_once_and_stops_nothing(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "progress").write_text("a file in the way")
    with caplog.at_level(logging.WARNING, "scaling"), shown(Tally(1, 1.0, clock), tmp_path / "progress") as refresh:
        for _ in range(3):
            clock.now += 2
            refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "progress cannot be written" in caplog.text
    assert "this runner cannot be watched" in caplog.text
