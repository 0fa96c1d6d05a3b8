"""The host's part in training one pack: chunks to the device, snapshots back one chunk late, checkpoints when due."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config import Run
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.recorder import Recorder, Snapshot
from scaling.training.state import Hyperparameters, TrainState, branch_state, referred_state
from scaling.training.tables import RunTables, Windows, hyperparameters, observations
from scaling.training.trainer import CHUNK, Measured, PackTrainer


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
CHUNK_SECONDS = 2.0  # a call of the devices lasts about so long at most: the host answers to signals between calls
FIRST_CALL = 8  # steps of a call whose speed is not known yet


class Preempted(RuntimeError):
    """The pack was asked to stop; its checkpoint is written."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls.

    `progress`: steps that a call trains, from one to another; it may still run. `interrupted`: asked after
    every chunk; once true, the loop saves and raises Preempted. `stop`: which runs end at a snapshot. `stopped`: which
    had ended by the step of a checkpoint, as its rows in the store tell.
    """

    save_states: SaveStates
    progress: Callable[[int, int], None]
    interrupted: Callable[[], bool]
    stop: Callable[[Snapshot], Sequence[str]]
    stopped: Callable[[int], Sequence[str]]


class Pace:
    """How many steps a call may take: CHUNK, or as many as CHUNK_SECONDS hold at the speed of the last call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.steps = clock, FIRST_CALL
        self._sent: tuple[int, float] | None = None

    def sent(self, steps: int) -> None:
        """A call of so many steps goes to the devices, which have just finished the one before."""
        now = self.clock()
        if self._sent is not None:
            last, begin = self._sent
            fitting = int(CHUNK_SECONDS * last / max(now - begin, 1e-9))
            self.steps = max(1, min(CHUNK, fitting, 4 * self.steps))
        self._sent = steps, now


class PackRun:
    """A pack in training."""

    def __init__(self, trainer: PackTrainer, job: PackJob) -> None:
        self.trainer, self.job = trainer, job
        self.places_R = trainer.layout.places(max(job.positions) + 1)[list(job.positions)]
        dtype = jnp.promote_types(trainer.program.training.dtype, jnp.float32)
        self.dtype = np.dtype(dtype)
        self.live_W = np.zeros(trainer.layout.lanes, np.int32)
        self.live_W[self.places_R] = 1
        self.pace = Pace()
        streams = [table.stream for table in job.tables]
        self.values_R = [hyperparameters(run, job.windows, stream, self.dtype)
                         for run, stream in zip(job.runs, streams, strict=True)]
        self.hyper = trainer.put(self._lanes(self.values_R))
        self.observations = observations(job.runs[0], job.steps)

    def _lanes(self, values_R: Sequence[Any]) -> Any:
        """Values of R runs in their lanes, [W, ...]; lanes without a run repeat the first run's and never advance."""
        source_W = np.zeros(self.trainer.layout.lanes, int)
        source_W[self.places_R] = np.arange(len(values_R))
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaves[i]) for i in source_W]), *values_R)

    def prepare(self, template: TrainState) -> int:
        """Compile before any state is placed; bytes of a device at the peak of a call. `template`: of one run."""
        lanes = len(self.live_W)
        state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), template)
        tables = self._lanes([table.rows(0, 1, CHUNK, self.dtype) for table in self.job.tables])
        self.trainer.prepare(state, self.hyper, tables, self.live_W)
        return self.trainer.memory()

    def start(self) -> TrainState:
        """The state before the first step: fresh, or the parents' with counters and metrics at zero."""
        seeds_W = self._lanes([np.int32(run.training.seed) for run in self.job.runs])
        if self.job.parents is None:
            return self.trainer.initial(seeds_W, self.hyper.mixing)
        return self.place([jax.device_get(self._branch(run, values, state)) for run, values, state
                           in zip(self.job.runs, self.values_R, self.job.parents, strict=True)])

    def _branch(self, run: Run, values: Hyperparameters, parent: TrainState) -> TrainState:
        """Where a run with a parent starts."""
        program = self.trainer.program
        if program.mixer is not None and program.mixer.name == "doremi":
            seed = jnp.int32(run.training.seed)
            return referred_state(program, self.trainer.vocabulary, seed, values.mixing, parent)
        reset = run.parent is not None and run.parent.optimizer == "reset"
        return branch_state(program, parent, reset, values.mixing)

    def place(self, states_R: Sequence[TrainState]) -> TrainState:
        """Host states of the runs onto their lanes."""
        return self.trainer.put(self._lanes(states_R))

    def measure(self, state: TrainState, step: int) -> Measured:
        """Held-out losses, counters and diagnostics after `step` of the lanes that hold a run; see
        `PackTrainer.measure`.
        """
        following = None
        if self.trainer.program.diagnostics is not None:
            following = self._lanes([table.following(step, self.dtype) for table in self.job.tables])
        return self.trainer.measure(state, self.live_W, self.hyper, following)

    def host_states(self, state: TrainState, run_ids: Sequence[str]) -> TrainState:
        """States of the named runs, host arrays [R, ...]."""
        places = self.places_R[[self.job.run_ids.index(run_id) for run_id in run_ids]]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], state)

    def advance(self, state: TrainState, start: int, stop: int) -> TrainState:
        """Train from step `start` to step `stop`, at most a chunk; returns while the devices work on it.

        The host prepares one call ahead of the devices and no further.
        """
        count = stop - start
        tables = self._lanes([table.rows(start, count, CHUNK, self.dtype) for table in self.job.tables])
        tables, steps_W = self.trainer.put((tables, self.live_W * count))
        jax.block_until_ready(state)
        self.pace.sent(count)
        return self.trainer.train(state, self.hyper, tables, steps_W, start in self.observations)

    def towards(self, state: TrainState, start: int, stop: int) -> tuple[TrainState, int]:
        """One call from step `start` on, to step `stop` at most; the state and the step it will reach. It ends where
        mixers look at their held-out losses.
        """
        stop = min([stop, *(step for step in self.observations if step > start)])
        reached = start + min(self.pace.steps, stop - start)
        return self.advance(state, start, reached), reached

    def end(self, run_ids: Sequence[str]) -> None:
        """Train these runs no further."""
        self.live_W[self.places_R[[self.job.run_ids.index(run_id) for run_id in run_ids]]] = 0

    def read(self, step: int, measured: Measured) -> Snapshot:
        """Bring a snapshot to the host; waits for the devices."""
        taken = jax.tree.map(lambda leaf: np.asarray(leaf)[self.places_R], measured)
        shares = taken.shares._asdict() if taken.shares else {}
        diagnostics = taken.diagnostics or {}
        return Snapshot(step, taken.losses_KxM, tuple(taken.metrics), taken.diverged_at, shares, diagnostics)


def replay_pack(trainer: PackTrainer, job: PackJob, hooks: Hooks) -> None:
    """Train up to the last step that branches need, to make states again that were dropped; records nothing.

    Raises Preempted after `hooks.interrupted()`; the replay starts over the next time.
    """
    pack = PackRun(trainer, job)
    state, step = pack.start(), 0
    for stop in sorted(job.saves):
        while step < stop:
            state, step = pack.towards(state, step, stop)
            if hooks.interrupted():
                raise Preempted(f"stopped on request after step {step} of a replay to step {max(job.saves)}")
        hooks.save_states(stop, list(job.saves[stop]), pack.host_states(state, job.saves[stop]))


def train_pack(
    trainer: PackTrainer, job: PackJob, recorder: Recorder, checkpoints: PackCheckpoints, template: TrainState,
    checkpoint_seconds: float, hooks: Hooks,
) -> np.ndarray:
    """Train a pack from its last checkpoint, or from its start, to its end; returns diverged_at of each run, int[R].

    Every evaluation's rows reach the store no later than the checkpoint that covers them. Raises Preempted after
    `hooks.interrupted()`, with a checkpoint of the last step trained.
    """
    pack = PackRun(trainer, job)
    found = checkpoints.latest(template)
    step = found[0] if found else 0
    recorder.rewind(step)
    state = pack.place([found[1][run_id] for run_id in job.run_ids]) if found else pack.start()
    pending: list[tuple[int, Any]] = []
    diverged_at_R = np.full(len(job.runs), -1)

    def end(run_ids: Sequence[str]) -> None:
        pack.end(run_ids)
        recorder.end(run_ids)

    def drain() -> None:
        nonlocal diverged_at_R
        for at, measured in pending:
            snapshot = pack.read(at, measured)
            recorder.add(snapshot)
            diverged_at_R = snapshot.diverged_at_R
            end(hooks.stop(snapshot))
        pending.clear()

    if found:
        end(hooks.stopped(step))
    else:
        pending.append((0, pack.measure(state, 0)))
    last_checkpoint = time.monotonic()
    for stop in sorted({*job.evaluations, *job.saves} - set(range(step + 1))):
        while step < stop:
            first = step
            state, step = pack.towards(state, step, stop)
            drain()  # while the devices work on the chunk just sent
            hooks.progress(first, step)
            if step == stop and stop in job.evaluations:
                pending.append((stop, pack.measure(state, stop)))
                state = trainer.fresh_metrics(state)
            if step == stop and stop in job.saves:
                hooks.save_states(stop, list(job.saves[stop]), pack.host_states(state, job.saves[stop]))
            interrupted = hooks.interrupted()
            if step < job.steps and (interrupted or time.monotonic() - last_checkpoint >= checkpoint_seconds):
                drain()
                recorder.flush(step)
                checkpoints.save(job.run_ids, step, pack.host_states(state, job.run_ids))
                last_checkpoint = time.monotonic()
                if interrupted:
                    raise Preempted(f"stopped on request after step {step} of {job.steps}; its checkpoint is written")
    drain()
    recorder.flush(job.steps)
    return diverged_at_R
