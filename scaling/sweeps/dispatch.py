"""The driver of a sweep on a cluster: one task plans, then a task a job, parents before branches, failed ones again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pandas as pd

from scaling.sweeps.forget import forget_runs
from scaling.sweeps.lock import workdir_lock
from scaling.sweeps.progress import Tally, printed, shown
from scaling.sweeps.recovery import recover
from scaling.sweeps.share import Carrier, CommonFolder, Share
from scaling.sweeps.tasks import Brief, JobFacts, Plan, plan_task, train_task
from scaling.sweeps.workdir import Workdir
from scaling.training.loop import Preempted

LOG = logging.getLogger("scaling")
POLL_SECONDS = 0.2  # between two looks at the tasks


class TasksFailedError(RuntimeError):
    """Tasks that failed at every attempt: names the jobs and the last error of each; others were finished."""


class Future(Protocol):
    """A task in a worker, as `concurrent.futures` has it. `result` raises whatever ended the worker."""

    def done(self) -> bool: ...

    def result(self) -> Any: ...


Submit = Callable[..., Future]  # (function, *arguments) -> its future


class Tasks:
    """Runs tasks on workers that come and go: each is tried `1 + retries` times. A preempted one does not count."""

    def __init__(self, submit: Submit, retries: int, interrupted: Callable[[], bool]) -> None:
        self.submit, self.retries, self.interrupted = submit, retries, interrupted

    def run(
        self, calls: Mapping[str, Sequence[Any]], ended: Callable[[str, Any], None], idle: Callable[[], None],
    ) -> dict[str, Exception]:
        """Make all calls, (function, *arguments) by name, at once; `ended(name, value)` for each that succeeds.

        Returns the last error of each that never did. Raises what a task returns as an error, but for Preempted, and
        Preempted after `interrupted()`; tasks at work are then left to themselves.
        """
        running = {name: self.submit(*call) for name, call in calls.items()}
        attempts = dict.fromkeys(calls, 1)
        failed: dict[str, Exception] = {}
        while running:
            if self.interrupted():
                raise Preempted(f"stopped on request with {len(running)} tasks at work")
            for name in [name for name, future in running.items() if future.done()]:
                again, attempts[name] = self._settle(name, running.pop(name), attempts[name], ended, failed)
                if again:
                    running[name] = self.submit(*calls[name])
            idle()
            time.sleep(POLL_SECONDS)
        return failed

    def _settle(
        self, name: str, future: Future, attempts: int, ended: Callable[[str, Any], None], failed: dict[str, Exception],
    ) -> tuple[bool, int]:
        """Whether a task that came to an end is to be tried again, and which attempt that is."""
        try:
            value = future.result()
        except Exception as error:
            LOG.warning("%s: attempt %d of %d: %s: %s", name, attempts, 1 + self.retries, type(error).__name__, error)
            if attempts <= self.retries:
                return True, attempts + 1
            failed[name] = error
            return False, attempts
        if isinstance(value, Preempted):
            LOG.warning("%s: %s", name, value)
            return True, attempts
        if isinstance(value, Exception):
            raise value
        ended(name, value)
        return False, attempts


def run_sweep(brief: Brief, tasks: Tasks) -> pd.DataFrame:
    """Train on a cluster the runs that the workdir lacks; returns the rows of this sweep's runs.

    Raises LockedError while another runner or its workers are at work there, ConfigError for a run that cannot be
    trained, ChangedCorpusError where text differs from the workdir's or between workers, Preempted after
    `tasks.interrupted()`, TasksFailedError for jobs that failed at every attempt, once all others ended.
    """
    workdir = Workdir(brief.workdir)
    with workdir_lock(brief.workdir):
        recover(workdir)
        driver = Driver(brief, tasks, workdir)
        driver.train(driver.plan())
        return driver.rows()


class Driver:
    """Sees a sweep through. It computes nothing and asks for no device."""

    def __init__(self, brief: Brief, tasks: Tasks, workdir: Workdir) -> None:
        self.brief, self.tasks, self.workdir = brief, tasks, workdir
        self.carrier = CommonFolder() if brief.share is None else Carrier(Share(brief.share), workdir)

    def rows(self) -> pd.DataFrame:
        """Rows of this sweep's runs in the store."""
        table = self.workdir.store.read("runs")
        ids = [run.run_id for run in self.brief.runs]
        return table[table.run_id.isin(ids)].reset_index(drop=True) if len(table) else table

    def _told(self) -> pd.DataFrame:
        """The rows that a worker needs that does not see the workdir."""
        if self.brief.share is None:
            return pd.DataFrame()
        table = self.workdir.store.read("runs")
        return table[table.status != "running"] if len(table) else table

    def plan(self) -> Plan:
        """Have the sweep planned, then remove what no job of it will use. Raises TasksFailedError."""
        self.carrier.open()
        plans: list[Plan] = []
        call = (plan_task, self.brief, self._told())
        failed = self.tasks.run({"plan": call}, lambda _, plan: plans.append(plan), lambda: None)
        if failed:
            raise TasksFailedError(_told_failures(failed)) from failed["plan"]
        self.carrier.planned()
        for job_id, run_ids in plans[0].again.items():
            self.carrier.forget(job_id)
            forget_runs(self.workdir.store, job_id, run_ids)
        mine = {job.job_id for job in plans[0].jobs}
        self.carrier.keep_jobs(mine)
        self.workdir.keep_jobs(mine)
        return plans[0]

    def train(self, plan: Plan) -> None:
        """Train all jobs, generation by generation. Raises TasksFailedError once nothing more can be done."""
        left = {f"job {job.job_id}": job for job in plan.jobs}
        failed: dict[str, Exception] = {}
        tally = Tally(sum(len(job.run_ids) for job in plan.jobs), sum(job.flops for job in plan.jobs))
        with self._progress(tally) as refresh:
            def ended(name: str, diverged: int) -> None:
                job = left.pop(name)
                self.carrier.collect(job.job_id)
                tally.work(job.tokens, job.flops)
                tally.finish(len(job.run_ids), diverged)

            for jobs in _generations(plan.jobs):
                self._keep_states(left)
                able = [job for job in jobs if job.parents.isdisjoint(_runs_of(left))]
                rows = self._told()
                calls = {f"job {job.job_id}": (train_task, self.brief, job, rows) for job in able}
                failed |= self.tasks.run(calls, ended, refresh)
            self._keep_states(left)
        if failed:
            waiting = len(left) - len(failed)
            rest = f"; {waiting} jobs that branch from them wait" if waiting else ""
            raise TasksFailedError(_told_failures(failed) + rest) from next(iter(failed.values()))

    def _progress(self, tally: Tally) -> AbstractContextManager[Callable[[], None]]:
        """Workers that see the workdir leave their own heartbeats there."""
        return printed(tally) if self.brief.share is None else shown(tally, self.workdir.progress)

    def _keep_states(self, left: Mapping[str, JobFacts]) -> None:
        needed = frozenset[str]().union(*(job.states for job in left.values()))
        self.carrier.keep_states(needed)
        self.workdir.keep_states(needed)


def _generations(jobs: Sequence[JobFacts]) -> Iterator[list[JobFacts]]:
    for generation in sorted({job.generation for job in jobs}):
        yield [job for job in jobs if job.generation == generation]


def _runs_of(jobs: Mapping[str, JobFacts]) -> set[str]:
    return {run_id for job in jobs.values() for run_id in job.run_ids}


def _told_failures(failed: Mapping[str, Exception]) -> str:
    each = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
    return f"{len(failed)} tasks failed at every attempt ({each}); see to the cause and run the same command again"
