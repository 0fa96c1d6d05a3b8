"""What a sweep costs against runs, steps, width and devices: slopes on log axes with 95% intervals, ratio to linear.

python -m benchmarks.scaling_cost [--runs=512] [--steps=256] [--rounds=3]
Training alone, compiled before the clock starts, of configs/base.py on prose with width 16 and sequence 32; more than
128 runs train as packs of 128 one after the other. Width is held against FLOPs: a slope below 1 says that wider models
use the machine better. One host device and two are measured in processes of their own, on the same work. Prints a
table and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping

import jax
import numpy as np
from scipy import stats

from benchmarks.common import finish, seconds, table
from benchmarks.packs import flat_width, pack_of, runs_of, trained
from experiments.runtime import set_up_jax
from scaling.models.counts import count
from scaling.sweeps.workbench import Workbench, cache_folder

PACK = 128
SMALL = {"model.width": 16, "model.heads": 2, "data.sequence": 32, "data.batch": 8, "schedule.warmup": {"steps": 1}}


def training(bench: Workbench, runs: int, steps: int, width: int = 16) -> Callable[[], object]:
    """A function that trains so many runs, pack by pack; compiled."""
    changes = {**SMALL, "model.width": width, "training.duration": {"steps": steps}}
    chosen = runs_of(runs, **changes)
    parts = [chosen[first:first + PACK] for first in range(0, runs, PACK)]
    packs = [pack_of(bench, part, flat_width(len(parts[0]))) for part in parts]
    trained(packs[0], 1)
    return lambda: [trained(pack, steps) for pack in packs]


def slope(name: str, functions: Mapping[float, Callable[[], object]], rounds: int) -> dict:
    """Exponent of the seconds in the functions' sizes, over all rounds; ratio of the ends to a line through 0."""
    took = {size: [] for size in functions}
    for _ in range(rounds):
        for size, function in functions.items():
            took[size].append(seconds(function))
    size_M = np.repeat(list(functions), rounds)
    fit = stats.linregress(np.log(size_M), np.log(np.concatenate(list(took.values()))))
    half = stats.t.ppf(0.975, len(size_M) - 2) * fit.stderr
    first, last = min(functions), max(functions)
    ratio = np.median(took[last]) / np.median(took[first]) / (last / first)
    return {"against": name, "from": first, "to": last, "seconds_to": float(np.median(took[last])),
            "slope": fit.slope, "low": fit.slope - half, "high": fit.slope + half, "ratio_to_linear": ratio}


def on_devices(devices: int, options: argparse.Namespace) -> float:
    """Seconds of 32 runs in a process that sees so many host devices."""
    command = [sys.executable, "-m", "benchmarks.scaling_cost", f"--devices={devices}", f"--steps={options.steps}",
               f"--rounds={options.rounds}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=512, help="the largest number of runs")
    parser.add_argument("--steps", type=int, default=256, help="the largest number of steps; a quarter elsewhere")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, help="measure 32 runs on so many host devices, nothing else")
    options = parser.parse_args()
    set_up_jax()
    bench = Workbench(cache_folder())
    if options.devices:
        jax.config.update("jax_num_cpu_devices", options.devices)
        function = training(bench, 32, options.steps)
        finish({"seconds": float(np.median([seconds(function) for _ in range(options.rounds)]))})
        return
    devices, short = len(jax.local_devices()), max(1, options.steps // 4)
    counts = [n for n in (1, 2, 8, 32, 128, 512) if devices <= n <= options.runs]
    flops = {width: count(runs_of(1, **{**SMALL, "model.width": width})[0].model, 256, 32).flops_exact
             for width in (16, 32, 64, 128)}
    rows = [
        slope("runs", {n: training(bench, n, short) for n in counts}, options.rounds),
        slope("steps", {n: training(bench, 8, n) for n in (short, 2 * short, 4 * short)}, options.rounds),
        slope("FLOPs, by width", {flops[w]: training(bench, 2 * devices, short, w) for w in flops}, options.rounds),
    ]
    table(rows)
    by_devices = {n: on_devices(n, options) for n in (1, 2)} if jax.default_backend() == "cpu" else {}
    table([{"host devices": n, "seconds": value} for n, value in by_devices.items()])
    finish({**{row["against"]: [row["slope"], row["low"], row["high"], row["ratio_to_linear"]] for row in rows},
            "two_devices_over_one": by_devices[1] / by_devices[2] if by_devices else None})


if __name__ == "__main__":
    main()
