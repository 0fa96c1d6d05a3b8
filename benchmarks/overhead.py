"""What logging, evaluation and checkpoints add to the time of the steps, and what crosses between host and devices.

python -m benchmarks.overhead [--runs=8] [--steps=2000] [--rounds=3]
A pack of configs/base.py on prose, at its default cadence: 12 log-spaced evaluations of 128 windows, a checkpoint every
60 s. Bare steps, steps with evaluations whose rows are dropped, and the whole loop run in turn; a checkpoint is timed
by itself and counted once every 60 s. Prints tables and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks.common import finish, interleaved, seconds, table
from benchmarks.packs import flat_width, pack_of, runs_of, trained
from experiments.runtime import set_up_jax
from scaling.config import Run
from scaling.store import Store
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import Hooks, PackRun, train_pack
from scaling.training.recorder import Recorder, RunFacts

CHECKPOINT_SECONDS = 60.0
HOOKS = Hooks(lambda step, run_ids, states: None, lambda first, last: None, lambda: False, lambda snapshot: (),
              lambda step: ())


def whole(bench: Workbench, pack: PackRun, folder: Path, runs: Sequence[Run]) -> object:
    """The loop as a sweep runs it, into a fresh store."""
    program = runs[0].program
    facts = [RunFacts(run.run_id, run.data.tokens_per_step, 1.0, rows.learning_rate_T)
             for run, rows in zip(runs, pack.job.tables, strict=True)]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        recorder = Recorder(Store(Path(name) / "store"), "pack", facts, bench.corpus(program).names,
                            bench.bytes_per_token(program))
        return train_pack(pack.trainer, pack.job, recorder, PackCheckpoints(Path(name) / "checkpoints"),
                          bench.template(program), CHECKPOINT_SECONDS, HOOKS)


def evaluated(pack: PackRun) -> object:
    """Steps and evaluations, the losses left on the devices."""
    state, step, kept = pack.start(), 0, []
    for stop in pack.job.evaluations:
        while step < stop:
            state, step = pack.towards(state, step, stop)
        kept.append(pack.measure(state))
        state = pack.trainer.fresh_metrics(state)
    return jax.block_until_ready((state, kept))


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts, while it lasts, calls of the devices, arrays sent to them and arrays read from them."""
    counts = {"calls": 0, "sent": 0, "read": 0}
    put, read, advance = jax.device_put, PackRun.read, PackRun.advance

    def counting_put(tree: Any, *rest: Any, **named: Any) -> Any:
        counts["sent"] += len(jax.tree.leaves(tree))
        return put(tree, *rest, **named)

    def counting_read(self: PackRun, step: int, measured: Any) -> Any:
        counts["read"] += len(jax.tree.leaves(measured))
        return read(self, step, measured)

    def counting_advance(self: PackRun, *rest: Any) -> Any:
        counts["calls"] += 1
        return advance(self, *rest)

    with (mock.patch.object(jax, "device_put", counting_put), mock.patch.object(PackRun, "read", counting_read),
          mock.patch.object(PackRun, "advance", counting_advance)):
        yield counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 8), ("steps", 2000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    set_up_jax()
    bench = Workbench(cache_folder())
    runs = runs_of(options.runs, **{"training.duration": {"steps": options.steps}})
    pack = pack_of(bench, runs, flat_width(options.runs))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with counted() as counts:
            whole(bench, pack, folder, runs)
        took = interleaved({
            "steps": lambda: trained(pack, options.steps), "steps, evaluations": lambda: evaluated(pack),
            "whole loop": lambda: whole(bench, pack, folder, runs)}, options.rounds)
        state, ids = trained(pack, 1), pack.job.run_ids
        checkpoints = PackCheckpoints(folder / "checkpoints")
        save = float(np.median([seconds(lambda step=step: checkpoints.save(ids, step, pack.host_states(state, ids)))
                                for step in (1, 2, 3)]))
    bare = took["steps"]
    shares = {"evaluation": took["steps, evaluations"] / bare - 1,
              "logging": (took["whole loop"] - took["steps, evaluations"]) / bare,
              "checkpoints": save / CHECKPOINT_SECONDS}
    table([{"what": what, "seconds": value} for what, value in {**took, "one checkpoint": save}.items()])
    table([{"share of the steps' time": name, "value": value} for name, value in shares.items()])
    per_call = {name: counts[name] / counts["calls"] for name in ("sent", "read")}
    finish({"runs": options.runs, "steps": options.steps, "evaluations": len(pack.job.evaluations), **shares,
            "together": sum(shares.values()), "calls": counts["calls"],
            "arrays_sent_a_call": per_call["sent"], "arrays_read_a_call": per_call["read"]})


if __name__ == "__main__":
    main()
