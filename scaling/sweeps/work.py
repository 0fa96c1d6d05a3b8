"""A sweep in its workdir: which packs it takes, what is left to train, what each run's numbers follow from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from scaling.config import Run
from scaling.fields import check_key
from scaling.models.counts import count
from scaling.seal import read_parquet
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.forget import FORGOTTEN, forget_runs
from scaling.sweeps.plan import Group, Manifest, Pack, Width, branch_points, branch_step, groups, largest_groups
from scaling.sweeps.rows import FINAL, STOPPED, Outcome
from scaling.sweeps.tuning import Tuner
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training.recorder import RunFacts
from scaling.training.tables import RunTables, Stream, Windows, run_tables


class ChangedCorpusError(RuntimeError):
    """The text behind a configuration is not what earlier runs of the workdir were trained on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The runs of one pack that this sweep has to train; those of others keep their places empty.

    `rule`: by which runs are stopped early, and which they must not be; empty where all are trained to their end.
    """

    pack: Pack
    runs: tuple[Run, ...]
    generation: int
    rule: str = ""

    @property
    def program(self) -> Run:
        return self.runs[0].program

    @functools.cached_property
    def job_id(self) -> str:
        """The pack's id where the whole pack is to be trained, so that an unchanged sweep resumes it."""
        run_ids = tuple(run.run_id for run in self.runs)
        if run_ids == self.pack.run_ids and not self.rule:
            return self.pack.pack_id
        return hashlib.sha256("".join([self.pack.pack_id, *run_ids, self.rule]).encode()).hexdigest()[:12]


class Work:
    """One sweep in one workdir. Runs that have no pack yet are planned at once, by one process at a time.

    `question`: what early stopping is for; None: it is off.
    """

    def __init__(
        self, runs: Sequence[Run], workdir: Path, bench: Workbench, question: Question | None = None,
    ) -> None:
        self.workdir, self.bench, self.question = Workdir(workdir), bench, question
        self.by_id = {run.run_id: run for run in runs}
        self.windows: dict[Run, Windows] = {program: bench.windows(program) for program in {r.program for r in runs}}
        self.groups = groups(runs, self.windows)
        self.group_of = {run.run_id: group for group, members in self.groups.items() for run in members}
        if question is not None:
            for program in self.windows:
                check_key(question.domain, program.data.names, "early_stopping")
        self._check_corpora()
        self.manifest = Manifest(self.workdir.plan)
        self.manifest.extend(self.groups, self._width)
        self.ended: dict[str, Outcome] = {}
        self.refresh()

    def rows(self) -> pd.DataFrame:
        """Rows of this sweep's runs in the store."""
        table = self.workdir.store.read("runs")
        return table[table.run_id.isin(list(self.by_id))].reset_index(drop=True) if len(table) else table

    def refresh(self) -> None:
        """Read from the store which runs have ended, and how."""
        self._learn_from(self.rows())

    def has_ended(self, job: Job) -> bool:
        """Whether all runs of a job have ended, by its own rows: another process may have trained it."""
        path = self.workdir.store.path("runs", job.job_id)
        if path.exists():
            self._learn_from(read_parquet(path).to_pandas())
        return all(run.run_id in self.ended for run in job.runs)

    def _learn_from(self, table: pd.DataFrame) -> None:
        if len(table):
            columns = ["run_id", "status", "diverged_at", "reason"]
            ended = table.loc[table.status.isin(FINAL), columns].values.tolist()
            self.learn({run_id: Outcome(*outcome) for run_id, *outcome in ended})
            self._learn_stopped(table[table.status == STOPPED])

    def _learn_stopped(self, stopped: pd.DataFrame) -> None:
        """A stopped run is an outcome while early stopping is on, unless a branch now starts from a later step."""
        if self.question is None:
            return
        last = self.last_branches(list(self.by_id.values()))
        for run_id, reason, steps in stopped[["run_id", "reason", "steps_trained"]].values.tolist():
            if last.get(run_id, 0) <= steps:
                self.learn({run_id: Outcome(STOPPED, reason=reason, stopped_at=steps)})

    def learn(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take note of how runs ended, as written to the store."""
        self.ended.update(outcomes)

    def _check_corpora(self) -> None:
        table = self.workdir.store.read("runs")
        if not len(table):
            return
        now = {(json.dumps(program.data.domains), program.data.tokenizer): self.bench.corpus(program).checksum
               for program in self.windows}
        for run_id, *columns, checksum in table[["run_id", "data.domains", "data.tokenizer", "corpus_checksum"]].values:
            found = now.get(tuple(columns), checksum)
            if found != checksum:
                raise ChangedCorpusError(
                    f"data.domains {columns[0]} now hold other text (checksum {found}) than when run {run_id} of this "
                    f"workdir was trained ({checksum}); restore the text or use another --workdir")

    def _width(self, group: Group, runs: int) -> Width:
        largest = largest_groups(self.groups)[group.program]
        return Tuner(self.bench).shared_speed(self.groups[group], largest).width

    def jobs(self) -> list[Job]:
        """What is left to do, as parts of packs, parents first."""
        found = []
        for pack in self.manifest.packs:
            missing = [r for r in pack.run_ids if r in self.by_id and r not in self.ended]
            if missing:
                runs = tuple(self.by_id[run_id] for run_id in missing)
                found.append(Job(pack, runs, self.group_of[missing[0]].generation, self._rule(missing)))
        return sorted(found, key=lambda job: job.generation)

    def _rule(self, run_ids: Sequence[str]) -> str:
        """What the stops among these runs depend on beside their curves: with another rule they are another job."""
        if self.question is None:
            return ""
        last = self.last_branches(self.left())
        return repr((self.question, [last.get(run_id, 0) for run_id in run_ids]))

    def last_branches(self, branches: Sequence[Run]) -> dict[str, int]:
        """The last step of each parent, by run_id, at which these runs branch."""
        return {run_id: max(steps) for run_id, steps in self.branch_points(branches).items()}

    def left(self) -> list[Run]:
        """The runs that have no outcome yet."""
        return [run for run_id, run in self.by_id.items() if run_id not in self.ended]

    def flops(self, run: Run) -> float:
        """Cost of a run's training."""
        return self._flops_per_token(run) * run.data.tokens_per_step * self.group_of[run.run_id].steps

    def _flops_per_token(self, run: Run) -> float:
        return count(run.model, self.bench.corpus(run.program).vocabulary, run.data.sequence).flops_exact

    def facts(self, run: Run) -> RunFacts:
        """What turns a run's steps into tokens, FLOPs and rates."""
        return RunFacts(run.run_id, run.data.tokens_per_step, self._flops_per_token(run),
                        self.tables(run).learning_rate_T)

    def tables(self, run: Run) -> RunTables:
        """Tables of a run; a branch goes on in the data where its ancestors stopped, an average where its first parent
        did.
        """
        windows = self.windows[run.program]
        if run.parent is None:
            return run_tables(run, windows, Stream.start(len(windows.by_domain)))
        parent = self.tables(self.by_id[run.parent.run_id])
        return run_tables(run, windows, parent.stream_after(self.branch_step(run)))

    def branch_step(self, run: Run) -> int:
        """The step of its parents that a branch starts from."""
        return branch_step(run, self.by_id, self.windows)

    def branch_points(self, branches: Sequence[Run]) -> dict[str, set[int]]:
        """Steps of each parent, by run_id, at which these runs branch."""
        return branch_points(branches, self.by_id, self.windows)

    def forget_unfinished(self, jobs: Sequence[Job]) -> None:
        """Remove what earlier runners left of jobs that are not among these, and of runs to be trained again."""
        for job_id, run_ids in self.stopped_again().items():
            forget_runs(self.workdir.store, job_id, run_ids)
        self.workdir.keep_jobs({job.job_id for job in jobs})

    def stopped_again(self) -> dict[str, list[str]]:
        """Stopped runs that are to be trained to their end, by the job that stopped them."""
        table = self.rows()
        if not len(table):
            return {}
        again = table[table.status.isin((STOPPED, FORGOTTEN)) & ~table.run_id.isin(list(self.ended))]
        return {str(job_id): list(rows.run_id) for job_id, rows in again.groupby("job_id")}

    def states_of(self, branches: Collection[Run]) -> set[str]:
        """Names of the states that these runs start from."""
        return {self.workdir.state(run_id, step).name
                for run_id, steps in self.branch_points(list(branches)).items() for step in steps}

    def drop_states(self, left: Collection[Run]) -> None:
        """Remove the states that none of the runs left to train starts from."""
        self.workdir.keep_states(self.states_of(left))
