"""Planning 10,000 runs, reading 5,000 curves: seconds and memory, against what planning and reading one at a time cost.

python benchmarks/limits.py
Prints a table and ends with one JSON line. Ratios are of one process on one machine; seconds are of this machine.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from configs.base import get_config
from scaling.config import Run, run_from
from scaling.store import Store
from scaling.sweeps.grid import product
from scaling.sweeps.plan import Manifest, Width, groups
from scaling.sweeps.sweep import Stage, Sweep
from scaling.training.tables import Windows

POINTS, ROWS_A_POINT, PACK = 50, 4, 32


def sweep(seeds: int) -> Sweep:
    """400 runs a seed: 100 trunks of 4 programs, 5 mixtures and 5 rates, each with 3 branches."""
    c = get_config()
    c.schedule.name, c.schedule.floor, c.evaluation.points = "constant", 1.0, 8
    mixtures = [{"prose": share, "code": 1 - share} for share in (0.125, 0.25, 0.5, 0.75, 0.875)]
    trunks = product({"model.width": [16, 32, 64, 128]}, {"data.mixture": mixtures},
                     {"schedule.peak": [1e-3 * 2**k for k in range(5)]}, {"training.seed": range(seeds)})
    branches = product({"parent.at": [{"steps": s} for s in (100, 200, 400)]}, {"parent.optimizer": ["keep"]})
    return Sweep(run_from(dict(c.items())), (Stage("trunk", trunks), Stage("branch", branches, parent="trunk")))


def plan(seeds: int) -> int:
    """Expand, check and pack a sweep; returns the number of runs."""
    runs = sweep(seeds).runs()
    held = Windows(tuple((name, 100_000) for name in runs[0].data.names))
    windows: dict[Run, Windows] = {program: held for program in {run.program for run in runs}}
    with tempfile.TemporaryDirectory() as folder:
        Manifest(Path(folder) / "plan.json").extend(groups(runs, windows), lambda group, count: Width(PACK, 1, 1))
    return len(runs)


def curves(first: int, runs: int) -> pd.DataFrame:
    """Curves of some runs, as a sweep leaves them."""
    random, rows = np.random.default_rng(first), runs * POINTS * ROWS_A_POINT
    ids = [f"{run:012x}" for run in range(first, first + runs)]
    step = np.tile(np.repeat(np.arange(POINTS), ROWS_A_POINT), runs)
    return pd.DataFrame({
        "run_id": np.repeat(ids, POINTS * ROWS_A_POINT), "step": step, "tokens": step * 1024, "flops": step * 1e9,
        "lr": random.random(rows), "split": np.tile(["validation", "validation", "validation", "train"], rows // 4),
        "domain": np.tile(["prose", "code", "headers", "mixture"], rows // 4), "loss": random.random(rows),
        "loss_se": random.random(rows), "bits_per_byte": random.random(rows)})


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    small = timed(lambda: plan(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = timed(lambda: plan(25))
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for first in range(0, 5000, PACK):
            store.write("curves", f"{first:05d}", curves(first, min(PACK, 5000 - first)))
        whole = timed(lambda: store.read("curves"))
        one = Store(Path(folder) / "one")
        one.write("curves", "0", curves(0, PACK))
        alone = timed(lambda: one.read("curves"))
    files = -(-5000 // PACK)
    result = {
        "plan_10000_runs_s": round(large, 2), "plan_peak_mb": round(megabytes, 1),
        "plan_seconds_a_run_10000_over_400": round(large / 10_000 / (small / 400), 2),
        "read_5000_runs_s": round(whole, 2), "read_over_files_alone": round(whole / (files * alone), 2),
    }
    for name, value in result.items():
        print(f"{name:40s} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
