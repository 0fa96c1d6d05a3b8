"""Stores as the rounds of a study of online mixers leave them: the configuration's own runs, losses of a known law."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from synthetic_continual import runs_of, write_store

from scaling.config import Run
from scaling.store import Store

World = Callable[[Mapping[str, float]], Mapping[str, float]]  # losses at the end by mean shares
Ends = Callable[[Run], Mapping[str, float]]  # the shares that a mixer's run ends with
START = 5.5  # nats/token before the first step
SEED_NOISE, RUN_NOISE = 0.02, 0.001


def simulate(folder: Path, c: ConfigDict, configuration: ModuleType, world: World, ends: Ends) -> Store:
    """Every round of the configuration, as if trained. A mixer's weights go in a line from equal shares to `ends`."""
    stages = configuration.get_stages(c)
    store = _write(folder, c, stages, world, ends)
    for follow_up in configuration.FOLLOW_UPS:
        stages = [*stages, *follow_up(c, store)]
        store = _write(folder, c, stages, world, ends)
    return store


def _write(folder: Path, c: ConfigDict, stages: list, world: World, ends: Ends) -> Store:
    def losses(run: Run, parent: Run | None, step: int) -> Mapping[str, float]:
        if step == 0:
            return dict.fromkeys(run.data.names, START)
        common = np.random.default_rng(run.training.seed).normal(scale=SEED_NOISE)
        own = np.random.default_rng(int(run.run_id, 16)).normal(scale=RUN_NOISE, size=len(run.data.names))
        shares = mean_shares(run, ends)
        longer = run.training.duration.steps / c.training.duration.steps  # a power law in tokens
        return {name: 1 + (loss - 1) * longer**-0.2 + common + noise
                for (name, loss), noise in zip(world(shares).items(), own, strict=True)}

    runs = runs_of(c, stages)
    store = write_store(folder, runs, losses)
    store.write("diagnostics", "all", pd.DataFrame([row for run in runs if run.mixer for row in _weights(run, ends)]))
    return store


def start_of(run: Run) -> dict[str, float]:
    """The shares of a static mixture, or that a mixer starts from; all domains."""
    shares = dict(run.data.mixture[0][1])
    return {name: shares.get(name, 0.0) for name in run.data.names}


def mean_shares(run: Run, ends: Ends) -> dict[str, float]:
    """What a run was trained on, mean over steps."""
    start = start_of(run)
    return start if run.mixer is None else {name: (start[name] + ends(run)[name]) / 2 for name in start}


def _weights(run: Run, ends: Ends) -> list[dict]:
    steps, start, end = run.training.duration.steps, start_of(run), ends(run)
    rows = []
    for step in (0, *run.evaluation.steps):
        for name in run.data.names:
            now = start[name] + (end[name] - start[name]) * step / (steps - 1)
            for quantity, value in (("weights", now), ("mean_weights", (start[name] + now) / 2)):
                rows.append({"run_id": run.run_id, "step": step, "name": f"{quantity}.{name}", "value": value})
    return rows


def toward(run: Run, target: Mapping[str, float], pull: float) -> dict[str, float]:
    """Shares that lie a part of the way from the start to a target, a little differently for each run."""
    part = pull * (1 + 0.05 * np.random.default_rng(int(run.run_id, 16)).uniform(-1, 1))
    return {name: share + part * (target[name] - share) for name, share in start_of(run).items()}
