"""The host's part in training one pack: chunks to the device, snapshots back one chunk late, checkpoints when due."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config import Run
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.recorder import Recorder, Snapshot
from scaling.training.state import Metrics, TrainState, branch_state
from scaling.training.tables import RunTables, Windows, hyperparameters
from scaling.training.trainer import CHUNK, PackTrainer


@dataclasses.dataclass(frozen=True)
class PackJob:
    """R runs of one program and horizon, and their positions in the pack, which others may have left.

    `parents`: each run's starting state, or None for a fresh start of all. `saves`: run ids whose states branches
    need, by step.
    """

    runs: Sequence[Run]
    positions: Sequence[int]
    tables: Sequence[RunTables]
    windows: Windows
    evaluations: Sequence[int]
    saves: Mapping[int, Sequence[str]]
    parents: Sequence[TrainState] | None

    @property
    def steps(self) -> int:
        return len(self.tables[0].learning_rate_T)

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]


SaveStates = Callable[[int, list[str], TrainState], None]  # step, run ids, host states [R, ...]
Progress = Callable[[int, int], None]  # results read from one step to another; the first call says where it starts


class PackRun:
    """A pack in training."""

    def __init__(self, trainer: PackTrainer, job: PackJob) -> None:
        self.trainer, self.job = trainer, job
        self.places_R = trainer.layout.places(max(job.positions) + 1)[list(job.positions)]
        dtype = jnp.promote_types(trainer.program.training.dtype, jnp.float32)
        self.dtype = np.dtype(dtype)
        self.live_W = np.zeros(trainer.layout.lanes, np.int32)
        self.live_W[self.places_R] = 1
        self.hyper = trainer.put(self._lanes([hyperparameters(run, job.windows, self.dtype) for run in job.runs]))

    def _lanes(self, values_R: Sequence[Any]) -> Any:
        """Values of R runs in their lanes, [W, ...]; lanes without a run repeat the first run's and never advance."""
        source_W = np.zeros(self.trainer.layout.lanes, int)
        source_W[self.places_R] = np.arange(len(values_R))
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaves[i]) for i in source_W]), *values_R)

    def start(self) -> TrainState:
        """The state before the first step: fresh, or the parents' with counters and metrics at zero."""
        seeds_W = self._lanes([np.int32(run.training.seed) for run in self.job.runs])
        if self.job.parents is None:
            return self.trainer.initial(seeds_W)
        branch = functools.partial(branch_state, self.trainer.program)
        return self.place([jax.device_get(branch(state, run.parent is not None and run.parent.optimizer == "reset"))
                           for run, state in zip(self.job.runs, self.job.parents, strict=True)])

    def place(self, states_R: Sequence[TrainState]) -> TrainState:
        """Host states of the runs onto their lanes."""
        return self.trainer.put(self._lanes(states_R))

    def measure(self, state: TrainState) -> tuple[Any, Metrics, Any]:
        """Held-out losses and counters of the lanes that hold a run; see `PackTrainer.measure`."""
        return self.trainer.measure(state, self.live_W)

    def host_states(self, state: TrainState, run_ids: Sequence[str]) -> TrainState:
        """States of the named runs, host arrays [R, ...]."""
        places = self.places_R[[self.job.run_ids.index(run_id) for run_id in run_ids]]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], state)

    def advance(self, state: TrainState, start: int, stop: int) -> TrainState:
        """Train from step `start` to step `stop`, in chunks."""
        for first in range(start, stop, CHUNK):
            count = min(CHUNK, stop - first)
            tables = self._lanes([table.rows(first, count, CHUNK, self.dtype) for table in self.job.tables])
            state = self.trainer.train(state, self.hyper, tables, self.live_W * count)
        return state

    def read(self, step: int, measured: tuple[Any, Metrics, Any]) -> Snapshot:
        """Bring a snapshot to the host; waits for the devices."""
        losses_WxKxM, metrics_W, diverged_at_W = jax.tree.map(np.asarray, measured)
        take = self.places_R
        return Snapshot(step, losses_WxKxM[take], tuple(x[take] for x in metrics_W), diverged_at_W[take])


def replay_pack(trainer: PackTrainer, job: PackJob, save_states: SaveStates) -> None:
    """Train up to the last step that branches need, to make states again that were dropped; records nothing."""
    pack = PackRun(trainer, job)
    state, step = pack.start(), 0
    for stop in sorted(job.saves):
        state, step = pack.advance(state, step, stop), stop
        save_states(stop, list(job.saves[stop]), pack.host_states(state, job.saves[stop]))


def train_pack(
    trainer: PackTrainer, job: PackJob, recorder: Recorder, checkpoints: PackCheckpoints, template: TrainState,
    checkpoint_seconds: float, save_states: SaveStates, progress: Progress,
) -> np.ndarray:
    """Train a pack from its last checkpoint, or from its start, to its end; returns diverged_at of each run, int[R].

    Every evaluation's rows reach the store no later than the checkpoint that covers them.
    """
    pack = PackRun(trainer, job)
    found = checkpoints.latest(template)
    step = found[0] if found else 0
    recorder.rewind(step)
    state = pack.place([found[1][run_id] for run_id in job.run_ids]) if found else pack.start()
    pending: list[tuple[int, Any]] = []
    diverged_at_R, told = np.full(len(job.runs), -1), step

    def drain() -> None:
        nonlocal diverged_at_R, told
        for at, measured in pending:
            snapshot = pack.read(at, measured)
            recorder.add(snapshot)
            diverged_at_R = snapshot.diverged_at_R
            progress(told, at)
            told = at
        pending.clear()

    if not found:
        pending.append((0, pack.measure(state)))
    last_checkpoint = time.monotonic()
    for stop in sorted({*job.evaluations, *job.saves} - set(range(step + 1))):
        state = pack.advance(state, step, stop)
        drain()  # while the devices work on the chunk just sent
        step = stop
        if stop in job.evaluations:
            pending.append((stop, pack.measure(state)))
            state = trainer.fresh_metrics(state)
        if stop in job.saves:
            save_states(stop, list(job.saves[stop]), pack.host_states(state, job.saves[stop]))
        if stop < job.steps and time.monotonic() - last_checkpoint >= checkpoint_seconds:
            drain()
            recorder.flush(stop)
            checkpoints.save(job.run_ids, stop, pack.host_states(state, job.run_ids))
            last_checkpoint = time.monotonic()
    drain()
    recorder.flush(job.steps)
    return diverged_at_R
