"""The local executor: trains what a sweep still lacks, pack by pack, parents before branches, safe against any end.

A workdir holds `plan.json` (packs, never re-planned), `store/` (tables), `checkpoints/` (packs in training) and
`states/` (what branches start from, dropped when no branch needs it any more).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from scaling.config import Run
from scaling.models.counts import count
from scaling.store import Store
from scaling.sweeps.lock import workdir_lock
from scaling.sweeps.plan import Group, Manifest, Pack, Width, branch_points, groups, largest_groups
from scaling.sweeps.progress import Tally, shown
from scaling.sweeps.rows import FINAL, Outcome, run_row
from scaling.sweeps.tuning import Tuner
from scaling.sweeps.workbench import Workbench
from scaling.training import checkpoints
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import PackJob, replay_pack, train_pack
from scaling.training.recorder import Recorder, RunFacts
from scaling.training.state import TrainState
from scaling.training.tables import RunTables, Stream, Windows, in_steps, run_tables


class ChangedCorpusError(RuntimeError):
    """The text behind a configuration is not what earlier runs of the workdir were trained on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The runs of one pack that this sweep has to train; those of others keep their places empty."""

    pack: Pack
    runs: tuple[Run, ...]

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


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train, nothing that changes a result: seconds between checkpoints."""

    checkpoint_seconds: float


def run_sweep(runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings) -> pd.DataFrame:
    """Train the runs that the workdir lacks; returns the rows of this sweep's runs.

    Raises LockedError when another runner is at work there, ConfigError for a run that cannot be trained,
    ChangedCorpusError when the corpus changed since the workdir's first runs.
    """
    with workdir_lock(workdir):
        sweep = LocalSweep(runs, workdir, bench, settings)
        sweep.train()
        return sweep.rows()


class LocalSweep:
    """One sweep in one workdir."""

    def __init__(self, runs: Sequence[Run], workdir: Path, bench: Workbench, settings: Settings) -> None:
        self.workdir, self.bench, self.settings = workdir, bench, settings
        self.by_id = {run.run_id: run for run in runs}
        self.store = Store(workdir / "store")
        self.windows: dict[Run, Windows] = {program: bench.windows(program) for program in {r.program for r in runs}}
        self.groups = groups(runs, self.windows)
        self.group_of = {run.run_id: group for group, members in self.groups.items() for run in members}
        self._check_corpora()
        self.manifest = Manifest(workdir / "plan.json")
        self.manifest.extend(self.groups, self._width)

    def rows(self) -> pd.DataFrame:
        """Rows of this sweep's runs."""
        table = self.store.read("runs")
        return table[table.run_id.isin(list(self.by_id))].reset_index(drop=True) if len(table) else table

    def _check_corpora(self) -> None:
        table = self.store.read("runs")
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

    def train(self) -> None:
        """Train every run of the sweep that has no outcome yet."""
        self._forget_unfinished()
        self._drop_states([run for job in self.jobs for run in job.runs])
        runs = [run for job in self.jobs for run in job.runs]
        tally = Tally(len(runs), sum(map(self._flops, runs)))
        with shown(tally) as refresh:
            for index, job in enumerate(self.jobs):
                self._train(job, tally, refresh)
                left = self.jobs[index + 1:]
                self._drop_states([run for later in left for run in later.runs])
                if all(later.program != job.program for later in left):
                    self.bench.forget(job.program)

    @functools.cached_property
    def jobs(self) -> list[Job]:
        """What is left to do, as parts of packs, parents first."""
        table = self.store.read("runs")
        ended = set(table.run_id[table.status.isin(FINAL)]) if len(table) else set()
        found = []
        for pack in self.manifest.packs:
            missing = [r for r in pack.run_ids if r in self.by_id and r not in ended]
            if missing:
                found.append(Job(pack, tuple(self.by_id[run_id] for run_id in missing)))
        return sorted(found, key=lambda job: self.group_of[job.runs[0].run_id].generation)

    def _forget_unfinished(self) -> None:
        """Remove what earlier runners left of jobs that this sweep does not continue, checkpoints before rows: a
        checkpoint never outlives the rows that lead up to it.
        """
        mine = {job.job_id for job in self.jobs}
        for folder in (self.workdir / "checkpoints").glob("*"):
            if folder.name not in mine:
                checkpoints.remove(folder)
        table = self.store.read("runs")
        if not len(table):
            return
        for job_id in set(table.job_id[table.status == "running"]) - mine:
            for name in ("curves", "diagnostics"):
                self.store.remove(name, [n for n in self.store.names(name) if n.startswith(f"{job_id}.")])
            self.store.remove("runs", [job_id])

    def _flops(self, run: Run) -> float:
        return self._facts(run).flops_per_token * run.data.tokens_per_step * self.group_of[run.run_id].steps

    def _facts(self, run: Run) -> RunFacts:
        counts = count(run.model, self.bench.corpus(run.program).vocabulary, run.data.sequence)
        return RunFacts(run.run_id, run.data.tokens_per_step, counts.flops_exact, self._tables(run).learning_rate_T)

    def _tables(self, run: Run) -> RunTables:
        """Tables of a run; a branch goes on in the data where its ancestors stopped."""
        windows = self.windows[run.program]
        if run.parent is None:
            return run_tables(run, windows, Stream.start(len(windows.by_domain)))
        parent = self._tables(self.by_id[run.parent.run_id])
        return run_tables(run, windows, parent.stream_after(self._branch_step(run)))

    def _branch_step(self, run: Run) -> int:
        assert run.parent is not None
        parent = self.by_id[run.parent.run_id]
        return in_steps(parent, run.parent.at, self.windows[parent.program])

    def _train(self, job: Job, tally: Tally, refresh: Callable[[], None]) -> None:
        """Train one job and write its rows: `running` while it lasts, then each run's outcome."""
        begin = time.monotonic()
        self._write_rows(job, {run.run_id: Outcome("running") for run in job.runs})
        outcomes = {run.run_id: Outcome("failed", reason=reason) for run, reason in self._without_parent(job.runs)}
        able = [run for run in job.runs if run.run_id not in outcomes]
        if able:
            diverged_at_R = self._train_able(job, able, tally, refresh)
            seconds = (time.monotonic() - begin) / len(able)
            for run, at in zip(able, diverged_at_R.tolist(), strict=True):
                outcomes[run.run_id] = Outcome("done" if at < 0 else "diverged", at, wall_seconds=seconds)
        self._write_rows(job, outcomes)
        PackCheckpoints(self.workdir / "checkpoints" / job.job_id).clear()
        tally.finish(len(job.runs), sum(outcome.status == "diverged" for outcome in outcomes.values()))
        refresh()

    def _train_able(self, job: Job, runs: list[Run], tally: Tally, refresh: Callable[[], None]) -> np.ndarray:
        program, corpus = job.program, self.bench.corpus(job.program)
        facts = [self._facts(run) for run in runs]
        recorder = Recorder(self.store, job.job_id, facts, corpus.names, self.bench.bytes_per_token(program))
        tokens_per_step = sum(fact.tokens_per_step for fact in facts)
        flops_per_step = sum(fact.tokens_per_step * fact.flops_per_token for fact in facts)
        resumed: list[int] = []

        def progress(first: int, last: int) -> None:
            if not resumed:
                resumed.append(first)
                tally.skip(first * flops_per_step)
            tally.work((last - first) * tokens_per_step, (last - first) * flops_per_step)
            refresh()

        return train_pack(
            self.bench.trainer(program, job.pack.width), self._pack_job(job.pack, runs, self._saves(runs)), recorder,
            PackCheckpoints(self.workdir / "checkpoints" / job.job_id), self.bench.template(program),
            self.settings.checkpoint_seconds, self._save_states, progress)

    def _pack_job(self, pack: Pack, runs: Sequence[Run], saves: dict[int, list[str]]) -> PackJob:
        positions = [pack.run_ids.index(run.run_id) for run in runs]
        parents = None if runs[0].parent is None else self._parent_states(runs)
        evaluations = self.group_of[runs[0].run_id].evaluations
        return PackJob(runs, positions, [self._tables(run) for run in runs], self.windows[runs[0].program], evaluations,
                       saves, parents)

    def _saves(self, runs: Sequence[Run]) -> dict[int, list[str]]:
        """Which of these runs' states the branches still to train need, by step."""
        left = [run for job in self.jobs for run in job.runs]
        points = branch_points(left, self.by_id, self.windows)
        saves: dict[int, list[str]] = {}
        for run in runs:
            for step in points.get(run.run_id, ()):
                saves.setdefault(step, []).append(run.run_id)
        return saves

    def _without_parent(self, runs: Sequence[Run]) -> list[tuple[Run, str]]:
        """Branches whose parent diverged or failed before the step they start from, and why they cannot run."""
        table = self.store.read("runs").set_index("run_id")
        found = []
        for run in runs:
            if run.parent is not None:
                parent = table.loc[run.parent.run_id]
                ended_before = parent.status == "failed" or 0 <= parent.diverged_at <= self._branch_step(run)
                if ended_before:
                    found.append((run, f"parent {run.parent.run_id} {parent.status} before the branch"))
        return found

    def _state_folder(self, run_id: str, step: int) -> Path:
        return self.workdir / "states" / f"{run_id}-{step}"

    def _save_states(self, step: int, run_ids: list[str], states_R: TrainState) -> None:
        for index, run_id in enumerate(run_ids):
            one = jax.tree.map(lambda leaf, i=index: leaf[i:i + 1], states_R)
            checkpoints.save(self._state_folder(run_id, step), [run_id], step, one)

    def _parent_states(self, runs: Sequence[Run]) -> list[TrainState]:
        """The states that branches start from; trained again where they were dropped before a branch was asked for."""
        parents = [self.by_id[run.parent.run_id] for run in runs if run.parent is not None]
        folders = [self._state_folder(parent.run_id, self._branch_step(run))
                   for run, parent in zip(runs, parents, strict=True)]
        for pack in self.manifest.packs:
            if any(parent.run_id in pack.run_ids and not folder.exists()
                   for parent, folder in zip(parents, folders, strict=True)):
                self._replay(pack, runs)
        return [checkpoints.load(folder, self.bench.template(parent.program))[parent.run_id]
                for folder, parent in zip(folders, parents, strict=True)]

    def _replay(self, pack: Pack, branches: Sequence[Run]) -> None:
        """Make the states again that these branches and those still to train need from a pack."""
        left = [run for job in self.jobs for run in job.runs]
        points = branch_points([*left, *branches], self.by_id, self.windows)
        saves: dict[int, list[str]] = {}
        for run_id in pack.run_ids:
            for step in points.get(run_id, ()):
                if not self._state_folder(run_id, step).exists():
                    saves.setdefault(step, []).append(run_id)
        runs = [self.by_id[run_id] for run_id in pack.run_ids if any(run_id in ids for ids in saves.values())]
        replay_pack(self.bench.trainer(runs[0].program, pack.width), self._pack_job(pack, runs, saves),
                    self._save_states)

    def _drop_states(self, left: Sequence[Run]) -> None:
        """Remove the states that none of the runs left to train starts from."""
        needed = {self._state_folder(run_id, step).name
                  for run_id, steps in branch_points(left, self.by_id, self.windows).items() for step in steps}
        for folder in (self.workdir / "states").glob("*"):
            if folder.name not in needed:
                checkpoints.remove(folder)

    def _write_rows(self, job: Job, outcomes: dict[str, Outcome]) -> None:
        corpus = self.bench.corpus(job.program)
        rows = [{"job_id": job.job_id, **run_row(
            run, self.group_of[run.run_id].steps, None if run.parent is None else self._branch_step(run),
            corpus.vocabulary, corpus.checksum, job.pack.pack_id, outcomes[run.run_id])} for run in job.runs]
        self.store.write("runs", job.job_id, pd.DataFrame(rows))
