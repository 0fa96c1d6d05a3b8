"""What the optimizer bench reads from a store: trials in their places, targets, times to them.

Which workload a row belongs to is told by its model, whose trial it is by optimizer and form, and which by its seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.algoperf import StudyTimes, study_times
from experiments.bench_design import EXTERNAL, RETRAINED, SELF, TUNING, Digit, Entry, Language, Settings, retrained
from experiments.bench_design import scored as scored_entries
from experiments.bench_design import tuning as tuning_entries
from scaling import fields
from scaling.fields import ConfigError, check
from scaling.store import Store
from scaling.workloads.race import STEP_SECONDS

STEPS, SECONDS = "steps", "device seconds"  # what times are counted in
KEY = ["optimizer.name", "optimizer.form"]
PLACE = ["workload", "part", "submission", "study", "trial"]
COMMAND = "run python -m experiments.optimizer_bench_trials and then python -m experiments.run, with the same flags"


def _of(task: Language | Digit, runs: pd.DataFrame) -> pd.Series:
    """Which rows are of a workload."""
    if isinstance(task, Language):
        mixture = json.dumps(fields.phases(task.mixture, "data.mixture"))
        return runs["data.mixture"] == mixture if "data.mixture" in runs else pd.Series(False, index=runs.index)
    changes = {f"workload.{name}": value for name, value in fields.flatten(task.workload).items()}
    found = pd.Series(True, index=runs.index)
    for name, value in changes.items():
        column = runs[name] if name in runs else pd.Series(np.nan, index=runs.index)
        found &= column.isna() if value is None else column == value
    return found


def _entries(s: Settings) -> pd.DataFrame:
    """Every trial of a workload but the retrained ones: part, submission, study, trial, seed, optimizer and form."""
    entries = [*tuning_entries(s), *scored_entries(s)]
    return pd.DataFrame([{"part": at.part, "submission": at.submission, "study": at.study, "trial": at.trial,
                          "training.seed": at.seed, "optimizer.name": at.optimizer.name,
                          "optimizer.form": at.optimizer.form or ""} for at in entries])


def placed(store: Store, s: Settings, tasks: Sequence[Language | Digit]) -> pd.DataFrame:
    """Finished runs with workload, part, submission, study and trial; those of no place are left out.

    Raises ConfigError for a workload that lacks trials.
    """
    runs = store.read("runs")
    check(len(runs) > 0, "store", str(store.root), "the runs of the bench", COMMAND)
    runs = runs[runs.status.isin(("done", "diverged"))].copy()
    if "optimizer.form" not in runs:
        runs["optimizer.form"] = ""
    runs["optimizer.form"] = runs["optimizer.form"].fillna("")
    entries, found = _entries(s), []
    for task in tasks:
        own = runs[_of(task, runs)]
        rows = own.merge(entries, on=["training.seed", *KEY])
        if len(rows) < len(entries):
            raise ConfigError(f"workload {task.name}: expected {len(entries)} finished trials, found {len(rows)}; "
                              f"{COMMAND}")
        again = own.merge(retrained_entries(s), on="training.seed")
        found.append(pd.concat([rows, again], ignore_index=True).assign(workload=task.name))
    return pd.concat(found, ignore_index=True)


def retrained_entries(s: Settings) -> pd.DataFrame:
    """Places of the retrained trials, whichever submission's they are."""
    at = next(entry for entry in tuning_entries(s))
    return pd.DataFrame([{"part": RETRAINED, "submission": "", "study": entry.study, "trial": 0,
                          "training.seed": entry.seed} for entry in retrained(s, at)])


def losses(store: Store, s: Settings, runs: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss of every placed trial after the first step on: the place, step, loss."""
    curves = store.read("curves")
    curves = curves[(curves.split == "validation") & (curves.step > 0)]
    domains = {task.name: task.domain if isinstance(task, Language) else task.workload.model for task in s.workloads}
    table = curves[["run_id", "domain", "step", "loss"]].merge(runs[["run_id", *PLACE]], on="run_id")
    return table[table.domain == table.workload.map(domains)].drop(columns="domain")


def best_entry(s: Settings, values: pd.DataFrame) -> Entry:
    """The tuning trial with the lowest loss at any evaluation."""
    own = values[values.part == TUNING]
    check(bool(np.isfinite(own.loss).any()), "tuning trials", len(own), "one that did not diverge", "widen the spaces")
    best = own.sort_values("loss").iloc[0]
    return next(at for at in tuning_entries(s) if (at.submission, at.trial) == (best.submission, best.trial))


def best_trials(store: Store, s: Settings, task: Language | Digit) -> list[Entry]:
    """The best tuning trial of a workload on fresh seeds."""
    return retrained(s, best_entry(s, losses(store, s, placed(store, s, [task]))))


def targets(s: Settings, values: pd.DataFrame) -> pd.DataFrame:
    """By workload: `target`, the median over the retrained trials of their best loss; the baseline and the point that
    were retrained; how many retrained trials reach it; spread of their best losses.

    Raises ConfigError for a workload whose best point was not retrained.
    """
    found = []
    for name, own in values.groupby("workload", sort=False):
        best = best_entry(s, own)
        lowest = own[own.part == RETRAINED].groupby("study").loss.min()
        check(len(lowest) == s.retrained, f"workload {name}: retrained trials", len(lowest), str(s.retrained), COMMAND)
        found.append({"workload": name, "target": float(lowest.median()), "baseline": best.submission,
                      "peak": best.schedule.peak, "trial": best.trial, "low": lowest.min(), "high": lowest.max()})
    return pd.DataFrame(found)


def step_seconds(store: Store, runs: pd.DataFrame) -> pd.DataFrame:
    """Device seconds a step by workload and optimizer: the median call, and how many there were."""
    told = store.read("diagnostics")
    told = told[told.name == STEP_SECONDS] if len(told) else told
    check(len(told) > 0, "store", str(store.root), "timed steps", COMMAND)
    rows = told.merge(runs[["run_id", "workload", *KEY]], on="run_id")
    return rows.groupby(["workload", *KEY]).value.agg(["median", "size"]).reset_index()


def trials(s: Settings, runs: pd.DataFrame, values: pd.DataFrame, goal: Mapping[Any, float],
           speed: pd.DataFrame) -> pd.DataFrame:
    """One row a scored trial, as `experiments.algoperf.study_times` takes them, with `steps` and `seconds` to the
    target: the first evaluation whose loss is not above it; inf where there is none.
    """
    hits = values[values.loss <= values.workload.map(goal)].groupby("run_id").step.min()
    rows = runs[runs.part.isin((EXTERNAL, SELF))].copy()
    rows[STEPS] = rows.run_id.map(hits).fillna(np.inf)
    rows = rows.merge(speed.rename(columns={"median": "step_seconds"}), on=["workload", *KEY], how="left")
    untimed = rows.loc[rows.step_seconds.isna(), ["workload", "submission"]].drop_duplicates()
    check(len(untimed) == 0, "step_seconds", untimed.to_numpy().tolist(), "a measured speed of each", COMMAND)
    rows[SECONDS] = rows[STEPS] * rows.step_seconds
    held_out = {task.name for task in s.workloads if task.held_out}
    return rows.assign(role=np.where(rows.workload.isin(held_out), "held_out", "base"),
                       reached=np.isfinite(rows[STEPS]).astype(int),
                       eval_index_at_target=np.where(np.isfinite(rows[STEPS]), rows[STEPS] / s.every, -1))


def times(table: pd.DataFrame, part: str, unit: str) -> StudyTimes:
    """Times of a ruleset's studies, in steps or in device seconds."""
    own = table[table.part == part]
    return study_times(own.assign(time_to_target_s=own[unit]))
