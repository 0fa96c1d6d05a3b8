"""What diagnostics add to a run: time of evaluations with each kind against those without, over the time of the steps.

python -m benchmarks.diagnostics [--width=64] [--runs=4] [--rounds=9]
Packs of configs/base.py at its own length and log-spaced evaluations, one a kind, whose evaluations (rows to the store
included) are timed in turn with a call of 128 steps, which no kind changes. The first evaluation compiles. Prints a
table and ends with one JSON line.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from benchmarks.common import finish, interleaved, seconds, table
from benchmarks.overhead import recorder_of
from benchmarks.packs import flat_width, pack_of, runs_of
from experiments.runtime import set_up_jax
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.loop import PackRun
from scaling.training.trainer import CHUNK

_WIDTH = flags.DEFINE_integer("width", 64, "Width of the model, 16 a head.")
_RUNS = flags.DEFINE_integer("runs", 4, "Runs of a pack.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times that each is timed.")
NOTHING = {"layers": False, "activations": False, "spectra": 0}
KINDS: dict[str, dict[str, Any] | None] = {
    "none": None, "layers": {**NOTHING, "layers": True}, "activations": {**NOTHING, "activations": True},
    "spectra": {**NOTHING, "spectra": 1}, "all": {"layers": True, "activations": True, "spectra": 1},
}


def evaluation(bench: Workbench, pack: PackRun, folder: Path) -> Callable[[], None]:
    """An evaluation of the pack's first states, measured, read and written."""
    state, recorder, steps = pack.start(), recorder_of(bench, pack, folder), itertools.count(1)

    def evaluate() -> None:
        step = next(steps)
        recorder.add(pack.read(step, pack.measure(state, 0)))
        recorder.flush(step)

    return evaluate


def main(_: list[str]) -> None:
    set_up_jax()
    jax.config.update("jax_enable_compilation_cache", False)
    bench = Workbench(cache_folder())
    changes = {"model.width": _WIDTH.value, "model.heads": max(1, _WIDTH.value // 16)}
    packs = {name: pack_of(bench, runs_of(_RUNS.value, **changes, diagnostics=kind), flat_width(_RUNS.value))
             for name, kind in KINDS.items()}
    trained = packs["none"]
    kept = {"state": trained.start()}

    def train() -> Any:
        kept["state"] = trained.advance(kept["state"], 0, CHUNK)
        return kept["state"]

    with tempfile.TemporaryDirectory() as name:
        functions: dict[str, Callable[[], object]] = {
            kind: evaluation(bench, pack, Path(name) / kind) for kind, pack in packs.items()}
        first = {kind: seconds(function) for kind, function in functions.items()}
        jax.block_until_ready(train())
        took = interleaved({"steps": train, **functions}, _ROUNDS.value)
    evaluations, steps_seconds = len({0, *trained.job.evaluations}), took["steps"] / CHUNK * trained.job.steps
    rows = [{"diagnostics": kind, "evaluation_ms": 1e3 * took[kind], "over_none": took[kind] / took["none"],
             "added_to_the_run": evaluations * (took[kind] - took["none"]) / steps_seconds,
             "first_evaluation_s": first[kind]} for kind in KINDS]
    table(rows)
    finish({"width": _WIDTH.value, "runs": _RUNS.value, "steps": trained.job.steps, "evaluations": evaluations,
            "over_none": {row["diagnostics"]: row["over_none"] for row in rows},
            "added_to_the_run": {row["diagnostics"]: row["added_to_the_run"] for row in rows}})


if __name__ == "__main__":
    app.run(main)
