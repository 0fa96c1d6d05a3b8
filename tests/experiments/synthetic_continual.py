"""Stores as the sweeps of studies of continual pre-training leave them: the configuration's own runs, losses given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from helpers import windows_of
from scaling.config import Run, run_from
from scaling.store import Store
from scaling.sweeps.rows import Outcome, run_row
from scaling.sweeps.sweep import Stage, Sweep
from scaling.training.tables import evaluation_steps, horizon, learning_rates

Losses = Callable[[Run, Run | None, int], Mapping[str, float]]  # run, its parent, step: loss by domain


def runs_of(c: ConfigDict, stages: list[Stage]) -> list[Run]:
    """Every run of a configuration."""
    return Sweep(run_from({key: value for key, value in c.items() if key != "study"}), tuple(stages)).runs()


def write_store(
    folder: Path, runs: list[Run], losses: Losses, diverged: Callable[[Run], bool] = lambda _: False
) -> Store:
    """Rows of the runs with the losses of a known truth."""
    by_id, rows, curves = {run.run_id: run for run in runs}, [], []
    for run in runs:
        windows = windows_of(run, 10**6)
        steps = horizon(run, windows)
        outcome = Outcome("diverged", 3) if diverged(run) else Outcome("done")
        at = None if run.parent is None else run.parent.at.steps
        rows.append(run_row(run, steps, at, 256, "text", "pack", outcome))
        rates_T = learning_rates(run, steps, windows)
        parent = None if run.parent is None else by_id[run.parent.run_id]
        for step in evaluation_steps(run, steps):
            common: dict[str, Any] = {"run_id": run.run_id, "step": step, "tokens": step * run.data.tokens_per_step,
                                      "split": "validation", "lr": rates_T[max(step - 1, 0)]}
            curves += [{**common, "domain": name, "loss": loss} for name, loss in losses(run, parent, step).items()]
    store = Store(folder)
    store.write("runs", "all", pd.DataFrame(rows))
    store.write("curves", "all", pd.DataFrame(curves))
    return store
