"""A store as a sweep of branches leaves it, with known laws behind its losses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.store import Store

STUDY = {
    "name": "critical_ratio", "general": "prose", "target": "code", "tolerance": 0.05, "widths": (16, 24, 32, 48),
    "seeds": (0, 1), "shares": (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0), "branch_steps": 100,
    "branch_evaluations": (10, 20, 40, 70, 100), "branch_peak": 1e-3, "fit_from": 0.2, "bootstrap": 60, "level": 0.95,
}
PARAMETERS = {16: 6_000, 24: 14_000, 32: 25_000, 48: 55_000}
STEPS = (0, 10, 20, 40, 70, 100)
ALPHA, POWER, BETA = 0.3, 2.0, -0.04


def critical_share(width: int) -> float:
    """Where ALPHA R^POWER + BETA, less a little for larger models, meets the tolerance."""
    return ((STUDY["tolerance"] - BETA) / alpha(width)) ** (1 / POWER)


def alpha(width: int) -> float:
    return ALPHA * (16 / width) ** 0.3


def write_store(folder: Path, noise: float = 0.001, status: str = "done") -> Store:
    """Runs and curves: two trunks a width, a branch a share, general loss rising and target loss falling."""
    rng = np.random.default_rng(0)
    runs, curves = [], []
    for width, parameters in PARAMETERS.items():
        for seed in STUDY["seeds"]:
            trunk = f"trunk{width}-{seed}"
            runs.append(_run(trunk, None, seed, width, parameters, {"prose": 1.0}, "done"))
            for share in STUDY["shares"]:
                run_id = f"branch{width}-{seed}-{share}"
                mixture = {"code": share, "prose": 1 - share}
                runs.append(_run(run_id, trunk, seed, width, parameters, mixture, status))
                start = {"prose": 2.0 + 30 / parameters**0.5 + 0.02 * seed, "code": 2.6 + 30 / parameters**0.5}
                shift = rng.normal(scale=noise)
                for step in STEPS:
                    part = step / STEPS[-1]
                    change = {"prose": part**0.5 * (alpha(width) * share**POWER + BETA + shift),
                              "code": -part**0.5 * (0.4 * share**0.3 + 0.02 + shift)}
                    curves += [{"run_id": run_id, "step": step, "tokens": step * 1024, "split": "validation",
                                "domain": domain, "loss": start[domain] + change[domain]} for domain in change]
    store = Store(folder)
    store.write("runs", "all", pd.DataFrame(runs))
    store.write("curves", "all", pd.DataFrame(curves))
    return store


def _run(run_id, parent, seed, width, parameters, mixture, status):
    return {"run_id": run_id, "parent_id": parent, "training.seed": seed, "model.width": width,
            "params_non_embedding": parameters, "data.mixture": json.dumps([[0.0, sorted(mixture.items())]]),
            "status": status, "tokens": 1024 * STEPS[-1], "flops": 1e9, "wall_seconds": 1.0, "device": "test"}
