"""What a cluster's worker does of a sweep: plan it, train one of its jobs. A task may be killed and started again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from scaling.config import Run
from scaling.fields import ConfigError
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.jobs import JobTrainer, Settings
from scaling.sweeps.lock import LockedError
from scaling.sweeps.machine import keep_compiled
from scaling.sweeps.preemption import Stop
from scaling.sweeps.progress import Tally, beating
from scaling.sweeps.share import PLAN, Share, SharedTrainer, lay_out, state_object, training_object
from scaling.sweeps.work import ChangedCorpusError, Job, Work
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training.loop import Preempted

LOG = logging.getLogger("scaling")
LOCK_SECONDS = 1.0  # between two looks at a job that another process trains


@dataclasses.dataclass(frozen=True)
class Brief:
    """What every task of a sweep is told. `workdir`, `cache`: the same paths on every machine.

    `share`: the object store that stands in for a workdir which only the driver sees. `host_devices`: devices of JAX
    where there is no accelerator.
    """

    runs: tuple[Run, ...]
    workdir: Path
    cache: Path
    settings: Settings
    question: Question | None
    share: str | None
    host_devices: int
    x64: bool


@dataclasses.dataclass(frozen=True)
class JobFacts:
    """What the driver knows of a job. `parents`: runs that it branches from, `states`: the names of their states.

    `corpus`: checksum of the text. `tokens`, `flops`: of the whole job.
    """

    job_id: str
    run_ids: tuple[str, ...]
    generation: int
    parents: frozenset[str]
    states: frozenset[str]
    corpus: str
    tokens: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is left of a sweep, parents first, and which stopped runs, by job, are to be trained again."""

    jobs: tuple[JobFacts, ...]
    again: dict[str, list[str]]


def attempt(function: Callable[..., Any], brief: Brief, *arguments: Any) -> Any:
    """Call `function(brief, *arguments, interrupted)` in a fresh worker process, its main thread.

    Returns the error, instead of raising it, where it is no fault of the worker: ConfigError, ChangedCorpusError,
    and Preempted once a checkpoint is written on SIGTERM.
    """
    if jax.config.read("jax_enable_x64") != brief.x64:
        jax.config.update("jax_enable_x64", brief.x64)
    jax.config.update("jax_num_cpu_devices", brief.host_devices)
    keep_compiled(brief.cache)
    try:
        with Stop().saving() as interrupted:
            return function(brief, *arguments, interrupted)
    except (ConfigError, ChangedCorpusError, Preempted) as error:
        return error


def plan_task(brief: Brief, rows: pd.DataFrame, interrupted: Callable[[], bool]) -> Plan:
    """Plan packs for the runs that have none, their widths measured on this worker; `rows`: the table of runs."""
    with _workdir(brief, rows, [PLAN]) as (workdir, share):
        work = Work(brief.runs, workdir, Workbench(brief.cache), brief.question)
        if share is not None:
            share.put(PLAN, workdir, [work.workdir.plan])
        return Plan(tuple(_facts(work, job) for job in work.jobs()), work.stopped_again())


def _facts(work: Work, job: Job) -> JobFacts:
    facts = [work.facts(run) for run in job.runs]
    tokens = [fact.tokens_per_step * work.group_of[fact.run_id].steps for fact in facts]
    return JobFacts(
        job.job_id, tuple(run.run_id for run in job.runs), job.generation,
        frozenset(run_id for run in job.runs for run_id in run.parent_ids), frozenset(work.states_of(job.runs)),
        work.bench.corpus(job.program).checksum, sum(tokens), sum(map(work.flops, job.runs)))


def train_task(brief: Brief, facts: JobFacts, rows: pd.DataFrame, interrupted: Callable[[], bool]) -> int:
    """Train one job, unless another process does or did; returns how many of its runs diverged.

    Raises Preempted once a checkpoint is written on request, ChangedCorpusError where this worker has another text.
    """
    needed = [PLAN, training_object(facts.job_id), *map(state_object, sorted(facts.states))]
    with _workdir(brief, rows, needed) as (workdir, share):
        work = Work(brief.runs, workdir, Workbench(brief.cache), brief.question)
        trainer = (JobTrainer(work, brief.settings, interrupted) if share is None
                   else SharedTrainer(share, work, brief.settings, interrupted))
        tally = Tally(len(facts.run_ids), facts.flops)
        with beating(tally, work.workdir.progress) as beat:
            for turn in itertools.count():
                job = next((job for job in work.jobs() if job.job_id == facts.job_id), None)
                if job is None:
                    break
                _check_text(work, job, facts.corpus)
                try:
                    trainer.train(job, tally, beat)
                except LockedError as error:
                    _wait(error, turn, interrupted)
                    work.refresh()
        unknown = set(facts.run_ids) - work.ended.keys()
        if unknown:
            raise RuntimeError(f"job {facts.job_id} is not in {work.workdir.plan}, but its runs {sorted(unknown)} have "
                               "not ended; start the sweep again")
        return sum(work.ended[run_id].status == "diverged" for run_id in facts.run_ids)


@contextlib.contextmanager
def _workdir(brief: Brief, rows: pd.DataFrame, needed: list[str]) -> Iterator[tuple[Path, Share | None]]:
    """The common workdir; or an empty one, filled with the `needed` objects of the share and the table of runs."""
    if brief.share is None:
        yield brief.workdir, None
        return
    share = Share(brief.share)
    with lay_out(share, needed) as workdir:
        if len(rows):
            Workdir(workdir).store.write("runs", "earlier", rows)
        yield workdir, share


def _check_text(work: Work, job: Job, planned: str) -> None:
    found = work.bench.corpus(job.program).checksum
    if found != planned:
        raise ChangedCorpusError(
            f"data.domains {job.program.data.domains} hold other text on this worker (checksum {found}) than where the "
            f"sweep was planned ({planned}); install the same packages and files on every machine")


def _wait(error: LockedError, turn: int, interrupted: Callable[[], bool]) -> None:
    """For the process that trains the job, such as one that was given up as lost and is not."""
    if turn == 0:
        LOG.warning("%s", error)
    if interrupted():
        raise Preempted("stopped on request while another process trains the job")
    time.sleep(LOCK_SECONDS)
