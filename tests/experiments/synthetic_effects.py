"""Stores of studies of an optimizer's claimed effect: the configuration's own runs with the losses of a known truth."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from scaling.config import Run
from scaling.store import Store

START = 5.5  # nats/token before any update


def configured(configuration: ModuleType, seeds: int) -> ConfigDict:
    """The small setting with fewer seeds."""
    c = configuration.get_config()
    c.study.seeds = tuple(range(seeds))
    return c


def noise(run: Run) -> float:
    """Normal, standard deviation 1e-3, one value a run."""
    return float(np.random.default_rng(int(run.run_id, 16)).normal(scale=1e-3))


def write(
    folder: Path, configuration: ModuleType, c: ConfigDict, loss: Callable[[Run, int], float],
    diverged: Callable[[Run], bool] = lambda _: False,
) -> tuple[Store, list[Run]]:
    """A store of every run; `loss`: of a run after a step above 0."""
    runs = runs_of(c, configuration.get_stages(c))

    def losses(run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
        return {"prose": loss(run, step) if step else START}

    return write_store(folder, runs, losses, diverged), runs


def diagnose(store: Store, runs: list[Run], steps: tuple[int, ...], values: Callable[[Run, int], Mapping[str, float]]
             ) -> None:
    """Add diagnostics, by name, of every run after these steps."""
    rows = [{"run_id": run.run_id, "step": step, "name": name, "value": value}
            for run in runs for step in steps for name, value in values(run, step).items()]
    store.write("diagnostics", "all", pd.DataFrame(rows))


KERNELS = ("block_0/attention/query/kernel", "block_1/feedforward/down/kernel")
