"""The local executor: trains what a sweep still lacks, job by job, parents before branches, safe against any end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from scaling.config import Run
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.jobs import JobTrainer, Settings
from scaling.sweeps.lock import workdir_lock
from scaling.sweeps.progress import Tally, shown
from scaling.sweeps.recovery import recover
from scaling.sweeps.work import Work
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir


def run_sweep(
    runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings, interrupted: Callable[[], bool],
    question: Question | None = None,
) -> pd.DataFrame:
    """Train the runs that the workdir lacks, in this process; returns the rows of this sweep's runs.

    `question`: runs that cannot matter to it are stopped early; None trains every run to its end.

    Raises LockedError when another runner or a worker of a killed one is at work there, ConfigError for a run that
    cannot be trained, ChangedCorpusError when the corpus changed since the workdir's first runs, Preempted after
    `interrupted()`.
    """
    with workdir_lock(workdir):
        recover(Workdir(workdir))
        work = Work(runs, workdir, bench, question)
        train_all(work, JobTrainer(work, settings, interrupted))
        return work.rows()


def train_all(work: Work, trainer: JobTrainer) -> None:
    """Train every run of the sweep that has no outcome yet."""
    jobs = work.jobs()
    work.forget_unfinished(jobs)
    keep = trainer.settings.keep_states
    if not keep:
        work.drop_states(work.left())
    tally = Tally(len(work.left()), sum(map(work.flops, work.left())))
    with shown(tally, work.workdir.progress) as refresh:
        for index, job in enumerate(jobs):
            trainer.train(job, tally, refresh)
            if not keep:
                work.drop_states(work.left())
            if all(later.program != job.program for later in jobs[index + 1:]):
                work.bench.forget(job.program)
