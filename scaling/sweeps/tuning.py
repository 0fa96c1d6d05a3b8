"""How wide to train: measured on the devices at hand, once a program and device, and remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from scaling.config import Run
from scaling.fields import check
from scaling.files import CorruptFileError
from scaling.seal import read_json, write_json
from scaling.sweeps.plan import Width
from scaling.sweeps.workbench import Workbench
from scaling.training.loop import PackJob, PackRun
from scaling.training.state import TrainState
from scaling.training.tables import Stream, horizon, run_tables
from scaling.training.trainer import CHUNK, OutOfMemoryError, memory_errors

LOG = logging.getLogger("scaling")
MOST_RUNS_A_DEVICE = 64
MEMORY_SHARE = 0.8  # of what the device reports free
MEASURED_SECONDS = 0.2
LEAST_GAIN = 0.05  # for which another width is taken: less is within the noise of a short measurement
REPEATS, DOUBTED = 2, 1.5  # more timings of each of two widths, unless the new one takes so many times as long


@dataclasses.dataclass(frozen=True)
class Speed:
    """A measured width: seconds that one step of one run takes in a full pack, bytes a device at the peak; whether all
    others that might be faster were tried.
    """

    width: Width
    seconds_per_step: float
    bytes_per_device: int
    compile_seconds: float
    settled: bool = False


def device_memory() -> int:
    """Bytes that one device may take: what it reports, or its share of the machine's memory."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)


def split(program: Run, runs: int, devices: int) -> int:
    """Over how many devices to split one run: 1, unless there are fewer runs than devices. Never with doge, whose
    gradients are by domain.
    """
    if program.mixer is not None and program.mixer.name == "doge":
        return 1
    microbatch = program.data.batch // program.training.accumulation
    fitting = [d for d in range(1, devices // runs + 1)
               if devices % d == 0 and microbatch % d == 0 and program.evaluation.windows % d == 0]
    return max(fitting, default=1)


def candidates(per_row: int, accelerator: bool) -> Iterator[int]:
    """Runs vmapped at a time, in the order tried: narrow first on CPU, where vmap rarely wins; wide first elsewhere."""
    narrow = [1]
    while narrow[-1] * 4 <= per_row:
        narrow.append(narrow[-1] * 4)
    yield from ([per_row, *reversed([v for v in narrow if v < per_row])] if accelerator else narrow)


class Tuner:
    """Chooses widths; measured speeds are kept in one JSON file a program, device and size of group."""

    def __init__(self, bench: Workbench) -> None:
        self.bench, self.folder = bench, bench.cache / "widths"

    def shared_speed(self, runs: Sequence[Run], largest: Sequence[Run]) -> Speed:
        """Speed of the width for packs of `runs`: that of the program's largest group where it wastes nothing on them.

        Lanes without a run cost nothing, but for those vmapped together with one that has.
        """
        speed = self.speed(largest)
        rows = len(jax.local_devices()) // speed.width.data
        return speed if speed.width.vmap <= max(1, len(runs) // rows) else self.speed(runs)

    def speed(self, runs: Sequence[Run]) -> Speed:
        """Speed of the best width for packs of these runs, which share a program; measured unless remembered."""
        path = self._path(runs[0].program, len(runs))
        if path.exists():
            try:
                record = read_json(path)
                speed = Speed(Width(**record.pop("width")), **record)
                if speed.settled or not self._another_pays(speed, runs):
                    return speed
            except CorruptFileError as error:
                LOG.warning("%s: %s; measuring again", path, error.why)
        speed = self._climb(runs)
        write_json(path, dataclasses.asdict(speed))
        return speed

    def _path(self, program: Run, runs: int) -> Path:
        device = jax.local_devices()[0]
        facts = [repr(program), runs, device.device_kind, len(jax.local_devices()), jax.__version__,
                 self.bench.corpus(program).checksum, REPEATS, [field.name for field in dataclasses.fields(Speed)]]
        return self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.json"

    def _climb(self, runs: Sequence[Run]) -> Speed:
        """Try widths while they get faster and the runs have enough to do; halve the runs a device while the program
        takes too much memory.
        """
        program, devices = runs[0].program, len(jax.local_devices())
        data = split(program, len(runs), devices)
        rows = devices // data
        per_row = min(-(-len(runs) // rows), MOST_RUNS_A_DEVICE)
        best: Speed | None = None
        for vmap in candidates(per_row, jax.default_backend() != "cpu"):
            if best is not None and not self._another_pays(best, runs):
                return best
            speed = self._fitting(runs, rows, per_row, vmap, data)
            if best is not None:
                best, speed = self._again(runs, best, speed)
                if speed.seconds_per_step > (1 - LEAST_GAIN) * best.seconds_per_step:
                    break
            best = speed
        assert best is not None
        return dataclasses.replace(best, settled=True)

    def _again(self, runs: Sequence[Run], best: Speed, other: Speed) -> tuple[Speed, Speed]:
        """Both at their fastest of several timings in turn: work beside ours on the machine slows one, rarely all."""
        for _ in range(REPEATS):
            if other.seconds_per_step > DOUBTED * best.seconds_per_step:
                break
            best, other = (self._retimed(runs, speed) for speed in (best, other))
        return best, other

    def _retimed(self, runs: Sequence[Run], speed: Speed) -> Speed:
        seconds = self._measure(runs, speed.width).seconds_per_step
        return dataclasses.replace(speed, seconds_per_step=min(speed.seconds_per_step, seconds))

    def _another_pays(self, speed: Speed, runs: Sequence[Run]) -> bool:
        """Whether all steps of the runs take longer than another width takes to compile: no gain can be larger."""
        windows = self.bench.windows(runs[0].program)
        return sum(horizon(run, windows) for run in runs) * speed.seconds_per_step > speed.compile_seconds

    def _fitting(self, runs: Sequence[Run], rows: int, per_row: int, vmap: int, data: int) -> Speed:
        """Speed with as many runs a device as fit. Raises ConfigError where not even one does."""
        most, program = MEMORY_SHARE * device_memory(), runs[0].program
        while True:
            vmap = min(vmap, per_row)
            width = Width(rows * -(-per_row // vmap) * vmap, vmap, data)
            LOG.info("compiling and timing width %d, depth %d: %d lanes, %d vmapped at a time", program.model.width,
                     program.model.depth, width.lanes, width.vmap)
            speed = self._measure(runs, width)
            if speed.bytes_per_device <= most and math.isfinite(speed.seconds_per_step):
                return speed
            check(per_row > 1, "data.batch", program.data.batch,
                  f"a run that takes at most {most:.0f} bytes of a device, not {speed.bytes_per_device}",
                  "raise training.accumulation, or shrink batch or model")
            per_row //= 2

    def _measure(self, runs: Sequence[Run], width: Width) -> Speed:
        """Time a few steps of a full pack, compiled before the clock starts; infinite seconds where it does not fit.

        What the compiled program says that it takes is looked at first: nothing too large is ever placed.
        """
        program = runs[0].program
        trainer, windows, template = (self.bench.trainer(program, width), self.bench.windows(program),
                                      self.bench.template(program))
        chosen = [runs[i % len(runs)] for i in range(width.lanes)]
        tables = [run_tables(run, windows, Stream.start(len(windows.by_domain))) for run in chosen]
        pack = PackRun(trainer, PackJob(chosen, range(width.lanes), tables, windows, (), {}, None))
        begin = time.perf_counter()
        memory = pack.prepare(template)
        compile_seconds, step_seconds = time.perf_counter() - begin, math.inf
        if memory <= MEMORY_SHARE * device_memory():
            with contextlib.suppress(OutOfMemoryError), memory_errors():
                step_seconds = _seconds_per_step(pack, template)
        return Speed(width, step_seconds / width.lanes, memory, compile_seconds)


def _seconds_per_step(pack: PackRun, template: TrainState) -> float:
    """Of a full pack, timed in ever longer calls until one lasts MEASURED_SECONDS."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    sound = zeros._replace(diverged_at=np.int32(-1))  # as fast as a fresh start, and nothing to compile for it
    state = jax.block_until_ready(pack.advance(pack.place([sound] * len(pack.job.runs)), 0, 1))
    steps, horizon = 1, min(CHUNK, min(len(table.learning_rate_T) for table in pack.job.tables))
    while True:
        begin = time.perf_counter()
        state = jax.block_until_ready(pack.advance(state, 0, steps))
        seconds = time.perf_counter() - begin
        if seconds >= MEASURED_SECONDS or steps == horizon:
            return seconds / steps
        steps = min(horizon, max(steps + 1, int(steps * 1.5 * MEASURED_SECONDS / seconds)))
