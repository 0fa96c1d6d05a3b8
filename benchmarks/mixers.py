"""What a mixture that learns costs: a step with each online mixer against one with a static mixture, in one run.

python -m benchmarks.mixers [--width=32]
Packs of runs of one program each, timed in turn; a mixer's held-out looks and probes are in its time. `bilevel` trains
two models and descends held-out loss as well; `doremi` adds a forward pass of its reference; both are meant to cost.
"""

from __future__ import annotations

from typing import Any

import jax
from absl import app, flags

from benchmarks.common import finish, interleaved, table
from benchmarks.packs import flat_width, pack_of, runs_of
from experiments.runtime import set_up_jax
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.loop import PackRun

_WIDTH = flags.DEFINE_integer("width", 32, "Width of the model, 16 a head.")
_RUNS = flags.DEFINE_integer("runs", 8, "Runs of a pack.")
STEPS = 128  # timed at once: a round of aioli
ROUNDS = 5
EVEN = {name: 1 / 3 for name in ("code", "headers", "prose")}
GRAPH = {i: {j: 1.0 if i == j else 0.5 for j in EVEN} for i in EVEN}
MIXERS: dict[str, dict[str, Any] | None] = {
    "static": None,
    "odm": {"name": "odm", "memory": 0.9},
    "skill_it": {"name": "skill_it", "rate": 0.2, "graph": GRAPH, "every": 64, "window": 3, "windows": 16},
    "aioli": {"name": "aioli", "rate": 0.2, "memory": 1.0, "own": 0.75, "every": 128, "interval": 4, "passes": 2,
              "windows": 16},
    "doge": {"name": "doge", "rate": 20.0},
    "doremi": {"name": "doremi", "rate": 1.0, "smoothing": 1e-3},
    "bilevel": {"name": "bilevel", "rate": 0.1, "penalty": 10.0, "windows": 16},
}


def _pack(bench: Workbench, name: str) -> PackRun:
    mixer = MIXERS[name]
    runs = runs_of(_RUNS.value, **{
        "model.width": _WIDTH.value, "model.heads": max(1, _WIDTH.value // 16), "data.batch": 15, "mixer": mixer,
        "data.mixture": EVEN, "training.duration": {"steps": STEPS},
        "parent": {"run_id": "reference", "at": {"steps": 1}, "optimizer": "reset"} if name == "doremi" else None})
    return pack_of(bench, runs, flat_width(len(runs)))


def _steps(pack: PackRun) -> Any:
    """STEPS steps from a fresh start, whatever a reference would be: only the time matters."""
    state, step = pack.trainer.initial(pack.hyper.seed, pack.hyper.mixing), 0
    while step < STEPS:
        state, step = pack.towards(state, step, STEPS)
    return jax.block_until_ready(state)


def main(_: list[str]) -> None:
    set_up_jax()
    bench = Workbench(cache_folder())
    packs = {name: _pack(bench, name) for name in MIXERS}
    for pack in packs.values():
        _steps(pack)  # compiles, and finds its pace
    took = interleaved({name: lambda pack=pack: _steps(pack) for name, pack in packs.items()}, ROUNDS)
    rows = [{"mixer": name, "ms_a_step": 1e3 * seconds / STEPS / _RUNS.value, "over_static": seconds / took["static"]}
            for name, seconds in took.items()]
    table(rows)
    finish({"width": _WIDTH.value, "runs": _RUNS.value, "devices": len(jax.local_devices()),
            "over_static": {row["mixer"]: row["over_static"] for row in rows}})


if __name__ == "__main__":
    app.run(main)
