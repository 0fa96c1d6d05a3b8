"""One sweep, several processes: each claims jobs from the shared workdir, and takes over those of a process that died.

jax.distributed only introduces the processes to each other (`scaling.sweeps.introduction`). Its service ends before
anything is trained, since it would pull down all processes with any one of them; from then on they meet in the workdir
alone, through locks that die with their holders.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

import pandas as pd

from scaling.config import Run
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.introduction import LostProcessError, Place, introduce
from scaling.sweeps.jobs import JobTrainer, Settings
from scaling.sweeps.lock import LockedError, last_words, lock_file, said, say, share, shared_lock, workdir_lock
from scaling.sweeps.progress import Tally, shown
from scaling.sweeps.recovery import recover, refuse_workers
from scaling.sweeps.work import ChangedCorpusError, Job, Work
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import PROCESS, Workdir
from scaling.training.loop import Preempted

LOG = logging.getLogger("scaling")
WAIT_SECONDS = 0.5  # between two looks at the workdir while there is nothing to do, or
SHARE = 10.0  # times as long as a look takes
LEFT = "left in good order"


def run_sweep(
    runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings, interrupted: Callable[[], bool],
    question: Question | None = None,
) -> pd.DataFrame | None:
    """Train the runs that the workdir lacks together with the other processes of one start, each on its own devices.

    Every process calls this, before anything else of JAX. Process 0 plans; then each claims jobs, parents first, until
    all runs have ended, whoever is lost on the way. Returns the rows of this sweep's runs in process 0, else None.
    Raises what the executor of one process does, and what `introduce` does; LostProcessError in the other processes
    when process 0 is lost, at once while it plans, else once all runs have ended.
    """
    with contextlib.ExitStack() as held:
        locks: list[FileIO] = []

        def prepare(process: int) -> None:
            path = _lock_of(workdir, process)
            locks.append(held.enter_context(lock_file(path, f"process {process} in workdir {workdir}")))
            if process == 0:
                locks.append(held.enter_context(workdir_lock(workdir)))
                refuse_workers(Workdir(workdir))

        given = hashlib.sha256("".join(run.run_id for run in runs).encode()).hexdigest()
        place = introduce(given, prepare)
        if place.process == 0:
            recover(Workdir(workdir))
            work = Work(runs, workdir, bench, question)
            work.forget_unfinished(work.jobs())
            say(locks[1], _words(place, work))
            share(locks[1], f"workdir {workdir}")
        else:
            plan = _planned(held, place, workdir, interrupted)
            work = Work(runs, workdir, bench, question)
            if said(plan) != _words(place, work):
                raise ChangedCorpusError(f"data.domains hold other text in process {place.process} than in process 0; "
                                         "give all the same $SCALING_CACHE, or the same texts and packages")
        _Claims(work, JobTrainer(work, settings, interrupted), place).train()
        say(locks[0], LEFT)
        return _end(work, place)


def _lock_of(workdir: Path, process: int) -> Path:
    """What a process holds as long as it lives; says LEFT after it has ended well."""
    return Workdir(workdir).lock(f"{PROCESS}{process}")


def _words(place: Place, work: Work) -> str:
    """What process 0 says of its plan, to the others and to runners that are refused."""
    texts = sorted(work.bench.corpus(program).checksum for program in work.windows)
    return f"{_start(place)}, text {hashlib.sha256(''.join(texts).encode()).hexdigest()[:12]}"


def _start(place: Place) -> str:
    return f"{place.count} processes, start {place.session}"


def _planned(held: contextlib.ExitStack, place: Place, workdir: Path, interrupted: Callable[[], bool]) -> FileIO:
    """Share the workdir's lock once process 0 has planned."""
    if last_words(_lock_of(workdir, 0)) is not None:
        raise LostProcessError(f"workdir {workdir}: process 0 is gone, or locks there do not reach from machine to "
                               "machine; start all processes again, on a file system that shares locks")
    while True:
        try:
            lock = held.enter_context(shared_lock(workdir / "lock", f"workdir {workdir}"))
            break
        except LockedError:
            _wait(WAIT_SECONDS, interrupted)
    if not said(lock).startswith(_start(place)):
        raise LostProcessError("process 0 was lost while it planned; start all processes again")
    return lock


def _wait(seconds: float, interrupted: Callable[[], bool]) -> None:
    if interrupted():
        raise Preempted("stopped on request while waiting for other processes")
    time.sleep(seconds)


def _end(work: Work, place: Place) -> pd.DataFrame | None:
    """Say who was lost on the way."""
    if place.process == 0:
        others = {other: last_words(_lock_of(work.workdir.root, other)) for other in range(1, place.count)}
        for other, words in others.items():
            if words not in (None, LEFT):
                LOG.warning("process %d (%s) was lost or stopped; the others trained its runs", other, words)
        return work.rows()
    words = last_words(_lock_of(work.workdir.root, 0))
    if words not in (None, LEFT):
        raise LostProcessError(f"process 0 ({words}) was lost or stopped; all runs have ended, start the same command "
                               "again, in one process or more, for what comes after training")
    return None


class _Claims:
    """Jobs of one sweep, claimed one by one through their locks."""

    def __init__(self, work: Work, trainer: JobTrainer, place: Place) -> None:
        self.work, self.trainer, self.place = work, trainer, place
        self.cost = {run.run_id: work.flops(run) for run in work.left()}
        self.tally = Tally(0, 0.0)
        self.program: Run | None = None

    def train(self) -> None:
        """Train whatever nobody else trains, until all runs have ended."""
        jobs = self._in_order(self.work.jobs())
        with shown(self.tally, self.work.workdir.progress) as refresh:
            while True:
                begin = time.monotonic()
                left = self._left(jobs)
                if not left:
                    break
                if not any([self._claim(job, refresh) for job in left if self._ready(job)]):
                    _wait(max(WAIT_SECONDS, SHARE * (time.monotonic() - begin)), self.trainer.interrupted)
                    refresh()

    def _in_order(self, jobs: Sequence[Job]) -> list[Job]:
        """Parents first; within a generation, each process starts at a place of its own, as far apart by cost."""
        ordered: list[Job] = []
        for _, group in itertools.groupby(jobs, key=lambda job: job.generation):
            generation = list(group)
            ends = list(itertools.accumulate(sum(self.cost[run.run_id] for run in job.runs) for job in generation))
            first = sum(end <= ends[-1] * self.place.process / self.place.count for end in ends)
            ordered += generation[first:] + generation[:first]
        return ordered

    def _left(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs with runs that have not ended; this process reckons with an equal share of them."""
        work, tally = self.work, self.tally
        work.refresh()
        tally.runs = tally.done + len(work.left())
        tally.flops = tally.worked + sum(self.cost[run.run_id] for run in work.left()) / self.place.count
        if self.place.process == 0:
            work.drop_states(work.left())
        return [job for job in jobs if not all(run.run_id in work.ended for run in job.runs)]

    def _ready(self, job: Job) -> bool:
        return all(run_id in self.work.ended for run in job.runs for run_id in run.parent_ids)

    def _claim(self, job: Job, refresh: Callable[[], None]) -> bool:
        """Train a job unless another process does. One program at a time stays on the devices."""
        if last_words(self.work.workdir.lock(job.job_id)) is None or self.work.has_ended(job):
            return False
        if self.program not in (None, job.program):
            self.work.bench.forget(self.program)
        self.program = job.program
        with contextlib.suppress(LockedError):
            self.trainer.train(job, self.tally, refresh)
            return True
        return False
