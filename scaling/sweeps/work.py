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
from scaling.models.counts import count
from scaling.sweeps.plan import Group, Manifest, Pack, Width, branch_points, groups, largest_groups
from scaling.sweeps.rows import FINAL, Outcome
from scaling.sweeps.tuning import Tuner
from scaling.sweeps.workbench import Workbench
from scaling.sweeps.workdir import Workdir
from scaling.training import checkpoints
from scaling.training.recorder import RunFacts
from scaling.training.tables import RunTables, Stream, Windows, in_steps, run_tables


class ChangedCorpusError(RuntimeError):
    """The text behind a configuration is not what earlier runs of the workdir were trained on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The runs of one pack that this sweep has to train; those of others keep their places empty."""

    pack: Pack
    runs: tuple[Run, ...]
    generation: int

    @property
    def program(self) -> Run:
        return self.runs[0].program

    @functools.cached_property
    def job_id(self) -> str:
        """The pack's id where the whole pack is to be trained, so that an unchanged sweep resumes it."""
        run_ids = tuple(run.run_id for run in self.runs)
        if run_ids == self.pack.run_ids:
            return self.pack.pack_id
        return hashlib.sha256("".join([self.pack.pack_id, *run_ids]).encode()).hexdigest()[:12]


class Work:
    """One sweep in one workdir. Runs that have no pack yet are planned at once, by one process at a time."""

    def __init__(self, runs: Sequence[Run], workdir: Path, bench: Workbench) -> None:
        self.workdir, self.bench = Workdir(workdir), bench
        self.by_id = {run.run_id: run for run in runs}
        self.windows: dict[Run, Windows] = {program: bench.windows(program) for program in {r.program for r in runs}}
        self.groups = groups(runs, self.windows)
        self.group_of = {run.run_id: group for group, members in self.groups.items() for run in members}
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
        table = self.rows()
        if len(table):
            columns = ["run_id", "status", "diverged_at", "reason"]
            ended = table.loc[table.status.isin(FINAL), columns].values.tolist()
            self.learn({run_id: Outcome(*outcome) for run_id, *outcome in ended})

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
                found.append(Job(pack, runs, self.group_of[missing[0]].generation))
        return sorted(found, key=lambda job: job.generation)

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
        """Tables of a run; a branch goes on in the data where its ancestors stopped."""
        windows = self.windows[run.program]
        if run.parent is None:
            return run_tables(run, windows, Stream.start(len(windows.by_domain)))
        parent = self.tables(self.by_id[run.parent.run_id])
        return run_tables(run, windows, parent.stream_after(self.branch_step(run)))

    def branch_step(self, run: Run) -> int:
        """The step of its parent that a branch starts from."""
        assert run.parent is not None
        parent = self.by_id[run.parent.run_id]
        return in_steps(parent, run.parent.at, self.windows[parent.program])

    def branch_points(self, branches: Sequence[Run]) -> dict[str, set[int]]:
        """Steps of each parent, by run_id, at which these runs branch."""
        return branch_points(branches, self.by_id, self.windows)

    def forget_unfinished(self, jobs: Sequence[Job]) -> None:
        """Remove what earlier runners left of jobs that are not among these, checkpoints before rows: a checkpoint
        never outlives the rows that lead up to it.
        """
        mine, store = {job.job_id for job in jobs}, self.workdir.store
        for folder in self.workdir.checkpoints.glob("*"):
            if folder.name not in mine:
                checkpoints.remove(folder)
        table = store.read("runs")
        if not len(table):
            return
        for job_id in set(table.job_id[table.status == "running"]) - mine:
            for name in ("curves", "diagnostics"):
                store.remove(name, [n for n in store.names(name) if n.startswith(f"{job_id}.")])
            store.remove("runs", [job_id])

    def drop_states(self, left: Collection[Run]) -> None:
        """Remove the states that none of the runs left to train starts from."""
        needed = {self.workdir.state(run_id, step).name
                  for run_id, steps in self.branch_points(list(left)).items() for step in steps}
        for folder in self.workdir.states.glob("*"):
            if folder.name not in needed:
                checkpoints.remove(folder)
