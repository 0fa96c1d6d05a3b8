"""Packs on an accelerator: runs an hour against one at a time, share of the matrix peak, pack width against memory.

python -m benchmarks.accelerator [--steps=256] [--out=results/benchmarks/accelerator.json]
Grids of 0.1M, 1M and 10M parameters in float32 and bfloat16. Widths double from one lane as long as twice the bytes of
the last compiled program stay below the sweeps' share of the device's memory, so none runs out of it; the best of them
is held against the same trainer with one lane. Without an accelerator it says so and measures nothing. Prints tables,
writes the result with device, versions and command, and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.common import finish, matmul_peak, seconds, table
from benchmarks.packs import pack_of, runs_of, trained
from experiments.runtime import set_up_jax
from scaling.models.counts import count
from scaling.sweeps.plan import Width
from scaling.sweeps.tuning import MEMORY_SHARE, device_memory
from scaling.sweeps.workbench import Workbench, cache_folder

SIZES = {  # parameters without embeddings: width, depth, heads, sequence, batch
    "0.1M": (64, 2, 4, 128, 16),
    "1M": (144, 4, 4, 256, 16),
    "10M": (384, 6, 6, 512, 16),
}
MOST_LANES = 512
LEAST_GAIN = 1.02  # of runs an hour over four times fewer lanes, for which a wider pack is tried


def shape(size: str, dtype: str, steps: int) -> dict[str, Any]:
    """Changes to configs/base.py for a size."""
    width, depth, heads, sequence, batch = SIZES[size]
    return {"model.width": width, "model.depth": depth, "model.heads": heads, "data.sequence": sequence,
            "data.batch": batch, "training.dtype": dtype, "training.duration": {"steps": steps},
            "schedule.warmup": {"steps": 1}}


def measure(bench: Workbench, size: str, dtype: str, lanes: int, steps: int) -> dict[str, Any]:
    """Speed and memory of a pack with so many runs on one device."""
    runs = runs_of(lanes, **shape(size, dtype, steps))
    program = runs[0].program
    pack = pack_of(bench, runs, Width(lanes, lanes, 1))
    trained(pack, 1)  # compiles
    took = min(seconds(lambda: trained(pack, steps)) for _ in range(3))
    bench.forget(program)
    counts = count(runs[0].model, bench.corpus(program).vocabulary, runs[0].data.sequence)
    flops = counts.flops_exact * runs[0].data.tokens_per_step * steps * lanes
    return {"model": size, "dtype": dtype, "lanes": lanes, "parameters": counts.total,
            "runs_an_hour_of_1000_steps": 3600 * lanes * steps / (1000 * took), "flops_per_second": flops / took,
            "bytes": pack.trainer.memory(), "bytes_a_lane": pack.trainer.memory() / lanes}


def climb(bench: Workbench, size: str, dtype: str, steps: int) -> list[dict[str, Any]]:
    """Packs of 1, 2, 4, ... lanes, until the next may not fit or the last gained nothing."""
    found: list[dict[str, Any]] = []
    lanes, rate = 1, "runs_an_hour_of_1000_steps"
    while lanes <= MOST_LANES:
        found.append(measure(bench, size, dtype, lanes, steps))
        gains = len(found) < 3 or found[-1][rate] > LEAST_GAIN * found[-3][rate]
        if not gains or 2 * found[-1]["bytes"] > MEMORY_SHARE * device_memory():
            break
        lanes *= 2
    return found


def against_one(rows: list[dict[str, Any]], peak: float) -> dict[str, Any]:
    """The best pack of a size against its first row, of one lane."""
    best = max(rows, key=lambda row: row["flops_per_second"])
    return {"model": best["model"], "dtype": best["dtype"], "lanes": best["lanes"],
            "runs_an_hour": best["runs_an_hour_of_1000_steps"],
            "over_one_at_a_time": best["flops_per_second"] / rows[0]["flops_per_second"],
            "share_of_peak": best["flops_per_second"] / peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=256, help="steps that are timed")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/accelerator.json"))
    options = parser.parse_args()
    set_up_jax()
    if jax.default_backend() == "cpu":
        print("no accelerator at hand: nothing measured")
        finish({"accelerator": None})
        return
    bench, device = Workbench(cache_folder()), jax.local_devices()[:1]
    rows, best = [], []
    peaks = {dtype: matmul_peak(dtype, device) for dtype in ("float32", "bfloat16")}
    for size in SIZES:
        for dtype, peak in peaks.items():
            found = climb(bench, size, dtype, options.steps)
            rows += found
            best.append(against_one(found, peak))
    table(rows)
    table(best)
    result = {"device": device[0].device_kind, "command": " ".join(["python -m benchmarks.accelerator", *sys.argv[1:]]),
              "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
              "matmul_peak_flops": peaks, "best": best, "packs": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    finish({"device": result["device"], "best": best})


if __name__ == "__main__":
    main()
