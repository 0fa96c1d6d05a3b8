"""Training one job, wherever it lands: idempotent, from its last checkpoint, what it needs found in the workdir."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
import pandas as pd

from scaling.config import Run
from scaling.fields import check
from scaling.sweeps.early_stopping import Contest, Referee, contenders
from scaling.sweeps.lock import lock_file
from scaling.sweeps.plan import Pack, Width
from scaling.sweeps.progress import Tally
from scaling.sweeps.rows import STOPPED, Outcome, run_row
from scaling.sweeps.work import Job, Work
from scaling.training import checkpoints
from scaling.training.averaging import average
from scaling.training.loop import Hooks, PackJob, Preempted, replay_pack, train_pack
from scaling.training.recorder import Recorder
from scaling.training.state import TrainState
from scaling.training.trainer import OutOfMemoryError, memory_errors

LOG = logging.getLogger("scaling")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train, nothing that changes a result: seconds between checkpoints; whether states that branches started
    from stay, for runs that are still to be decided on.
    """

    checkpoint_seconds: float
    keep_states: bool = False

    def __post_init__(self) -> None:
        seconds = self.checkpoint_seconds
        check(math.isfinite(seconds) and seconds >= 0, "--checkpoint_seconds", seconds, "a finite number of at least 0",
              "give 0 for a checkpoint whenever there may be one")


class JobTrainer:
    """Trains jobs of one sweep, one after the other, in this process. `interrupted` asks for a stop at a checkpoint."""

    def __init__(self, work: Work, settings: Settings, interrupted: Callable[[], bool]) -> None:
        self.work, self.bench, self.workdir = work, work.bench, work.workdir
        self.settings, self.interrupted = settings, interrupted
        self.narrowed: dict[tuple[Run, Width], Width] = {}  # for want of memory, by program and planned width

    def train(self, job: Job, tally: Tally, refresh: Callable[[], None]) -> None:
        """Train one job and write its rows: `running` while it lasts, then each run's outcome. Nothing to do where
        another process has trained it.

        Raises LockedError when another process trains it, Preempted once a checkpoint is written on request,
        OutOfMemoryError when not even one run at a time fits the devices.
        """
        if self.interrupted():
            raise Preempted(f"stopped on request before job {job.job_id}")
        with lock_file(self.workdir.lock(job.job_id), f"job {job.job_id}"):
            if not self.work.has_ended(job):
                self._train_locked(job, tally, refresh)

    def _train_locked(self, job: Job, tally: Tally, refresh: Callable[[], None]) -> None:
        begin = time.monotonic()
        self._write_rows(job, {run.run_id: Outcome("running") for run in job.runs})
        outcomes = {run.run_id: Outcome("failed", reason=reason) for run, reason in self._without_parent(job.runs)}
        able = [run for run in job.runs if run.run_id not in outcomes]
        if able:
            ended = self._fitting(job.program, job.pack.width,
                                  lambda width: self._train_able(job, able, width, tally, refresh))
            seconds = (time.monotonic() - begin) / len(able)
            outcomes |= {run_id: dataclasses.replace(end, wall_seconds=seconds) for run_id, end in ended.items()}
        self._write_rows(job, outcomes)
        self.work.learn(outcomes)
        self.workdir.checkpoints_of(job.job_id).clear()
        tally.finish(len(job.runs), sum(outcome.status == "diverged" for outcome in outcomes.values()))
        refresh()

    def _train_able(
        self, job: Job, runs: list[Run], width: Width, tally: Tally, refresh: Callable[[], None],
    ) -> dict[str, Outcome]:
        program, corpus = job.program, self.bench.corpus(job.program)
        facts = [self.work.facts(run) for run in runs]
        recorder = Recorder(self.workdir.store, job.job_id, facts, corpus.names, self.bench.bytes_per_token(program))
        flops_per_step = sum(fact.tokens_per_step * fact.flops_per_token for fact in facts)
        referee = self._referee(job, runs)
        resumed: list[int] = []

        def progress(first: int, last: int) -> None:
            if not resumed:
                resumed.append(first)
                tally.skip(first * flops_per_step)
            stopped = {} if referee is None else referee.contest.stops
            going = [fact for fact in facts if fact.run_id not in stopped]
            tokens = (last - first) * sum(fact.tokens_per_step for fact in going)
            flops = (last - first) * sum(fact.tokens_per_step * fact.flops_per_token for fact in going)
            tally.work(tokens, flops)
            tally.skip((last - first) * flops_per_step - flops)
            refresh()

        diverged_at_R = train_pack(
            self.bench.trainer(program, width), self._pack_job(job.pack, runs, self._saves(runs)), recorder,
            self.workdir.checkpoints_of(job.job_id), self.bench.template(program), self.settings.checkpoint_seconds,
            self._hooks(progress, referee))
        return _outcomes(runs, diverged_at_R, referee)

    def _fitting(self, program: Run, planned: Width, train: Callable[[Width], T]) -> T:
        """`train` at the planned width; while the devices' memory does not hold it, again from the last checkpoint with
        half as many runs at a time.

        Raises OutOfMemoryError when not even one run at a time fits.
        """
        width = self.narrowed.get((program, planned), planned)
        while True:
            try:
                with memory_errors():
                    return train(width)
            except OutOfMemoryError as error:
                if width.vmap == 1:
                    raise OutOfMemoryError(f"one run at a time does not fit ({error}); free the devices from other "
                                           "programs, raise training.accumulation, or shrink batch or model") from error
                narrower = width.narrower()
                LOG.warning("out of memory with %d runs at a time (%s); going on with %d", width.vmap, error,
                            narrower.vmap)
            self.bench.forget(program)
            self.narrowed[program, planned] = width = narrower

    def _hooks(self, progress: Callable[[int, int], None], referee: Referee | None) -> Hooks:
        if referee is None:
            return Hooks(self._save_states, progress, self.interrupted, lambda snapshot: (), lambda step: ())
        return Hooks(self._save_states, progress, self.interrupted, referee.stop, referee.stopped)

    def _referee(self, job: Job, runs: Sequence[Run]) -> Referee | None:
        """Who stops runs of a job early; None where early stopping is off."""
        question, work = self.work.question, self.work
        if question is None:
            return None
        rates = {run.run_id: work.tables(run).learning_rate_T for run in runs}
        contest = Contest(question, contenders(runs, work.by_id, rates), work.group_of[runs[0].run_id].evaluations,
                          work.last_branches(work.left()))
        domain = job.program.data.names.index(question.domain)
        return Referee(contest, list(rates), domain, lambda: self.workdir.store.read("curves"))

    def _pack_job(self, pack: Pack, runs: Sequence[Run], saves: dict[int, list[str]]) -> PackJob:
        work = self.work
        positions = [pack.run_ids.index(run.run_id) for run in runs]
        parents = None if runs[0].parent is None else self._parent_states(runs)
        evaluations = work.group_of[runs[0].run_id].evaluations
        return PackJob(runs, positions, [work.tables(run) for run in runs], work.windows[runs[0].program], evaluations,
                       saves, parents)

    def _saves(self, runs: Sequence[Run]) -> dict[int, list[str]]:
        """Which of these runs' states the branches still to train need, by step."""
        points = self.work.branch_points(self.work.left())
        saves: dict[int, list[str]] = {}
        for run in runs:
            for step in points.get(run.run_id, ()):
                saves.setdefault(step, []).append(run.run_id)
        return saves

    def _without_parent(self, runs: Sequence[Run]) -> list[tuple[Run, str]]:
        """Branches of which a parent diverged or failed before the step they start from, and why they cannot run."""
        if not self.work.ended.keys() >= {run_id for run in runs for run_id in run.parent_ids}:
            self.work.refresh()  # another process trained them
        found = []
        for run in runs:
            parents = {run_id: self.work.ended[run_id] for run_id in run.parent_ids}
            gone = [f"parent {run_id} {parent.status} before the branch" for run_id, parent in parents.items()
                    if parent.status == "failed" or 0 <= parent.diverged_at <= self.work.branch_step(run)]
            if gone:
                found.append((run, gone[0]))
        return found

    def _save_states(self, step: int, run_ids: list[str], states_R: TrainState) -> None:
        for index, run_id in enumerate(run_ids):
            one = jax.tree.map(lambda leaf, i=index: leaf[i:i + 1], states_R)
            checkpoints.save(self.workdir.state(run_id, step), [run_id], step, one)

    def _parent_states(self, runs: Sequence[Run]) -> list[TrainState]:
        """The states that branches start from; trained again where they were dropped before a branch was asked for."""
        parents = {(run_id, self.work.branch_step(run)): self.work.by_id[run_id]
                   for run in runs for run_id in run.parent_ids}
        for pack in self.work.manifest.packs:
            if any(run_id in pack.run_ids and not self.workdir.state(run_id, step).exists()
                   for run_id, step in parents):
                with lock_file(self.workdir.lock(f"{pack.pack_id}.replay"), f"pack {pack.pack_id}", wait=True):
                    self._replay(pack, runs)
        states = {(run_id, step): checkpoints.load(self.workdir.state(run_id, step),
                                                   self.bench.template(parent.program))[run_id]
                  for (run_id, step), parent in parents.items()}
        return [self._start(run, states) for run in runs]

    def _start(self, run: Run, states: Mapping[tuple[str, int], TrainState]) -> TrainState:
        """The state of a branch's parent, or the average of its parents'; `states` by run_id and step."""
        assert run.parent is not None
        step = self.work.branch_step(run)
        return average([states[run_id, step] for run_id in run.parent_ids], list(run.parent.weights.values()))

    def _replay(self, pack: Pack, branches: Sequence[Run]) -> None:
        """Make the states again that these branches and those still to train need from a pack."""
        points = self.work.branch_points([*self.work.left(), *branches])
        saves: dict[int, list[str]] = {}
        for run_id in pack.run_ids:
            for step in points.get(run_id, ()):
                if not self.workdir.state(run_id, step).exists():
                    saves.setdefault(step, []).append(run_id)
        if not saves:
            return  # another process made them while this one waited
        runs = [self.work.by_id[run_id] for run_id in pack.run_ids if any(run_id in ids for ids in saves.values())]
        program, job = runs[0].program, self._pack_job(pack, runs, saves)
        self._fitting(program, pack.width, lambda width: replay_pack(
            self.bench.trainer(program, width), job, self._hooks(lambda first, last: None, referee=None)))

    def _write_rows(self, job: Job, outcomes: dict[str, Outcome]) -> None:
        corpus = self.bench.corpus(job.program)
        rows = [{"job_id": job.job_id, **run_row(
            run, self.work.group_of[run.run_id].steps, None if run.parent is None else self.work.branch_step(run),
            corpus.vocabulary, corpus.checksum, job.pack.pack_id, outcomes[run.run_id])} for run in job.runs]
        self.workdir.store.write("runs", job.job_id, pd.DataFrame(rows))


def _outcomes(runs: Sequence[Run], diverged_at_R: np.ndarray, referee: Referee | None) -> dict[str, Outcome]:
    """How the runs of a job ended. What a stopped run did after the step it was stopped at does not count."""
    stops = {} if referee is None else referee.contest.stops
    found = {}
    for run, at in zip(runs, diverged_at_R.tolist(), strict=True):
        stop = stops.get(run.run_id)
        if stop is not None:
            found[run.run_id] = Outcome(STOPPED, reason=stop.reason, stopped_at=stop.step)
        else:
            found[run.run_id] = Outcome("done" if at < 0 else "diverged", at)
    return found
