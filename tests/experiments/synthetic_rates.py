"""A store as a sweep of learning rates leaves it, with a known loss behind every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd
from ml_collections import ConfigDict

from scaling.config import Run, run_from
from scaling.store import Store
from scaling.sweeps.sweep import Stage, Sweep

UNTRAINED = 5.5  # nats/token


def expanded(config: ConfigDict, stages: Sequence[Stage]) -> list[Run]:
    """The runs of a configuration's stages."""
    values = {key: value for key, value in config.items() if key != "study"}
    return Sweep(run_from(values), tuple(stages)).runs()


def write_runs(
    store: Store, name: str, runs: Sequence[Run], loss_of: Callable[[Run], float],
    size_of: Callable[[int], float] = lambda width: 12.0 * width**2, status: str = "done",
) -> None:
    """Runs that have ended with loss_of(run) on prose, or diverged where that is inf; size_of: parameters by width."""
    rows, curves = [], []
    for run in runs:
        loss, steps = loss_of(run), run.training.duration.in_steps(run.data.tokens_per_step)
        ended = math.isfinite(loss)
        rows.append({**run.flat(), "run_id": run.run_id, "parent_id": None, "status": status if ended else "diverged",
                     "steps": steps, "params_non_embedding": size_of(run.model.width), "device": "test",
                     "tokens": steps * run.data.tokens_per_step, "flops": 1e6, "wall_seconds": 0.1})
        curves += [{"run_id": run.run_id, "split": "validation", "domain": "prose", "step": step, "loss": value}
                   for step, value in ((0, UNTRAINED), (steps, loss)) if math.isfinite(value)]
    store.write("runs", name, pd.DataFrame(rows))
    store.write("curves", name, pd.DataFrame(curves))
