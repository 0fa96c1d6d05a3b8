"""What a workdir says of its sweep at one moment: runs by status, last losses, failures, runners. Reads only."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scaling.fields import ConfigError
from scaling.store import TABLES, StoreError
from scaling.sweeps.heartbeat import Heartbeat, read_heartbeats
from scaling.sweeps.plan import Manifest
from scaling.sweeps.workdir import Workdir

WAITING = "waiting"  # a run of plan.json that has no row yet
ORDER = ("done", "stopped", "diverged", "failed", "running", WAITING)
UNFINISHED = ("running", WAITING)
SECTIONS = ("model.", "data.", "optimizer.", "schedule.", "training.", "evaluation.")
ATTEMPTS, PATIENCE = 5, 0.2  # readings of a store that a runner is changing, seconds between them
RUN_COLUMNS = ("run_id", "status", "steps", "steps_trained", "tokens", "flops", "wall_seconds", "diverged_at", "reason")
CURVE_COLUMNS = ("run_id", "step", "tokens", "flops", "lr", "split", "domain", "loss", "loss_se", "bits_per_byte")


@dataclasses.dataclass(frozen=True)
class Status:
    """A sweep as its workdir shows it. `runs`: one row a run planned or trained; `at`: Unix seconds."""

    workdir: Path
    at: float
    runs: pd.DataFrame
    curves: pd.DataFrame
    diagnostics: pd.DataFrame
    runners: tuple[Heartbeat, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Runs by status, the usual ones in order, then any other."""
        found = collections.Counter(self.runs.status)
        known = {status: found[status] for status in ORDER if found[status]}
        return known | {status: found[status] for status in sorted(found.keys() - known.keys())}

    @property
    def left(self) -> int:
        """Runs without an outcome."""
        return int(self.runs.status.isin(UNFINISHED).sum())

    @property
    def working(self) -> tuple[Heartbeat, ...]:
        """Runners seen at work just now."""
        return tuple(runner for runner in self.runners if runner.state(self.at) == "working")

    @property
    def varied(self) -> list[str]:
        """Configuration fields in which the runs differ, by dotted name, those of most values first."""
        columns = [name for name in map(str, self.runs) if name.startswith(SECTIONS)]
        values = {name: self.runs[name].nunique() for name in columns}
        return sorted((name for name in columns if values[name] > 1), key=lambda name: -values[name])

    def last(self) -> pd.DataFrame:
        """The last held-out loss of each run and domain: run_id, domain, step, tokens, loss, bits_per_byte."""
        held_out = self.curves[self.curves.split == "validation"].dropna(subset="loss")
        last = held_out.sort_values("step", kind="stable").groupby(["run_id", "domain"], as_index=False).tail(1)
        return last[["run_id", "domain", "step", "tokens", "loss", "bits_per_byte"]].reset_index(drop=True)

    def losses(self) -> pd.DataFrame:
        """Last held-out losses by domain: runs, lowest, median, highest loss (nats/token) and the run of the lowest.

        Runs that diverged or failed are left out.
        """
        broken = self.runs.run_id[self.runs.status.isin(("diverged", "failed"))]
        last = self.last().sort_values("loss", kind="stable")
        last = last[~last.run_id.isin(broken)]
        return last.groupby("domain", as_index=False).agg(
            runs=("loss", "size"), lowest=("loss", "min"), median=("loss", "median"), highest=("loss", "max"),
            best_run=("run_id", "first"))

    def failures(self) -> pd.DataFrame:
        """Runs that failed, diverged or were stopped: run_id, status, the step of divergence or NA, reason."""
        ended_early = self.runs[~self.runs.status.isin(("done", *UNFINISHED))]
        table = ended_early[["run_id", "status", "diverged_at", "reason"]].reset_index(drop=True)
        table["diverged_at"] = table.diverged_at.where(table.diverged_at >= 0)
        unsaid = table.status.eq("diverged") & table.reason.fillna("").eq("")
        table.loc[unsaid, "reason"] = "training loss above training.diverged_above, or not finite"
        return table

    def throughput(self) -> pd.DataFrame:
        """One row a runner: its heartbeat, `state`, `age` (seconds since seen), runs an hour, seconds left."""
        rows = [{**dataclasses.asdict(runner), "state": runner.state(self.at), "age": runner.age(self.at),
                 "runs_per_hour": runner.runs_per_hour, "seconds_left": runner.seconds_left}
                for runner in self.runners]
        columns = [*(field.name for field in dataclasses.fields(Heartbeat)), "state", "age", "runs_per_hour",
                   "seconds_left"]
        return pd.DataFrame(rows, columns=columns)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Everything that the views show, by name: runs, curves, diagnostics, losses, failures, throughput."""
        return {"runs": self.runs, "curves": self.curves, "diagnostics": self.diagnostics, "losses": self.losses(),
                "failures": self.failures(), "throughput": self.throughput()}


def read_status(workdir: Path, clock: Callable[[], float] = time.time,
                sleep: Callable[[float], None] = time.sleep) -> Status:
    """The status of the sweep in a workdir, a live one too: what a runner replaces meanwhile is read again.

    Raises ConfigError for a folder that holds no sweep, StoreError for one that cannot be read.
    """
    paths = Workdir(workdir)
    if not paths.plan.exists() and not paths.store.root.is_dir():
        raise ConfigError(f"--workdir={workdir}: expected the folder of a sweep, with plan.json or store/; check the "
                          "path, or run python -m experiments.run first")
    for attempt in range(ATTEMPTS):
        try:
            tables = {name: paths.store.read(name) for name in TABLES}
            break
        except StoreError:
            if attempt == ATTEMPTS - 1:
                raise
            sleep(PATIENCE)
    planned = [run_id for pack in Manifest(paths.plan).packs for run_id in pack.run_ids]
    return Status(workdir, clock(), _all_runs(tables["runs"], planned), _with(tables["curves"], CURVE_COLUMNS),
                  _with(tables["diagnostics"], ("run_id", "step", "name", "value")),
                  tuple(read_heartbeats(paths.progress)))


def _with(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table, with columns of nothing for those that it lacks."""
    return table.reindex(columns=[*table.columns, *(name for name in columns if name not in table)])


def _all_runs(rows: pd.DataFrame, planned: list[str]) -> pd.DataFrame:
    """Rows of runs, and one for each planned run that has none."""
    rows = _with(rows, RUN_COLUMNS)
    known = set(rows.run_id)
    waiting = pd.DataFrame({"run_id": [run_id for run_id in planned if run_id not in known], "status": WAITING})
    if not len(rows):
        return waiting.reindex(columns=rows.columns)
    return pd.concat([rows, waiting], ignore_index=True) if len(waiting) else rows
