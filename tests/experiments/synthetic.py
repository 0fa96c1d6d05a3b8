"""A store as a sweep of branches leaves it, with known laws behind its losses."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.store import Store

STUDY = {
    "name": "critical_ratio", "general": "prose", "target": "code", "tolerance": 0.05, "widths": (16, 24, 32, 48),
    "seeds": (0, 1), "shares": (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0), "branch_steps": 100,
    "branch_evaluations": (10, 20, 40, 70, 100), "branch_peak": 1e-3, "fit_from": 0.2, "bootstrap": 60, "level": 0.95,
}
PARAMETERS = {16: 6_000, 24: 14_000, 32: 25_000, 40: 38_000, 48: 55_000}
STEPS = (0, 10, 20, 40, 70, 100)
ALPHA, POWER, BETA = 0.3, 2.0, -0.04


def critical_share(width: int) -> float:
    """Where ALPHA R^POWER + BETA, less a little for larger models, meets the tolerance."""
    return ((STUDY["tolerance"] - BETA) / alpha(width)) ** (1 / POWER)


def alpha(width: int) -> float:
    return ALPHA * (16 / width) ** 0.3


def write_store(folder: Path, noise: float = 0.001, status: str = "done") -> Store:
    """Runs and curves: two trunks a width, a branch a share, general loss rising and target loss falling."""

    def change(width: int, share: float, step: int, shift: float) -> dict[str, float]:
        part = step / STEPS[-1]
        return {"prose": part**0.5 * (alpha(width) * share**POWER + BETA + shift),
                "code": -part**0.5 * (0.4 * share**0.3 + 0.02 + shift)}

    return write_branches(folder, STUDY, STEPS, change, noise, status)


def write_branches(
    folder: Path, study: Mapping[str, Any], steps: Sequence[int], change: Callable[..., dict[str, float]],
    noise: float, status: str = "done", target: str = "code", name: str = "all",
) -> Store:
    """Trunks of every width and seed, and a branch of each at every share, whose losses differ from the trunk's by
    change(width, share, step, shift), with one normal shift a branch; as file `name` of the store.
    """
    rng = np.random.default_rng(0)
    runs, curves = [], []
    for width in study["widths"]:
        for seed in study["seeds"]:
            trunk = f"{name}-trunk{width}-{seed}"
            runs.append(_run(trunk, None, seed, width, {"prose": 1.0}, "done", 2 * steps[-1]))
            for share in study["shares"]:
                run_id = f"{name}-branch{width}-{seed}-{share}"
                runs.append(_run(run_id, trunk, seed, width, {target: share, "prose": 1 - share}, status, steps[-1]))
                start, shift = starts(width, seed), rng.normal(scale=noise)
                for step in steps:
                    curves += [{"run_id": run_id, "step": step, "tokens": step * 1024, "split": "validation",
                                "domain": domain, "loss": start[domain] + value}
                               for domain, value in change(width, share, step, shift).items()]
    store = Store(folder)
    store.write("runs", name, pd.DataFrame(runs))
    store.write("curves", name, pd.DataFrame(curves))
    return store


def starts(width: int, seed: float) -> dict[str, float]:
    """A trunk's losses."""
    level = 30 / PARAMETERS[width]**0.5
    return {"prose": 2.0 + level + 0.02 * seed, "code": 2.6 + level, "headers": 3.0 + 1.2 * level}


def _run(run_id, parent, seed, width, mixture, status, steps):
    return {"run_id": run_id, "parent_id": parent, "parent_step": None if parent is None else 2 * steps,
            "training.seed": seed, "model.width": width, "params_non_embedding": PARAMETERS[width],
            "flops_per_token": 6.0 * PARAMETERS[width],
            "data.mixture": json.dumps([[0.0, sorted(mixture.items())]]), "status": status, "steps": steps,
            "tokens": 1024 * steps, "flops": 1e6 * steps, "wall_seconds": 0.01 * steps, "device": "test"}
