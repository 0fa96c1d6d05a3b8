"""What logging, evaluation and checkpoints add to the time of the steps, and what crosses between host and devices.

python -m benchmarks.overhead [--runs=4] [--rounds=9]
A pack of configs/base.py as it is: its length, its log-spaced evaluations on every domain, a checkpoint every 60 s. A
call of 128 steps, an evaluation, its rows brought to the host and written to a store, and a checkpoint are timed in
turn, each awaited, then weighed by how often they come: in a sweep the host's part hides behind the devices, so these
shares are upper bounds. Calls and transfers are counted over one whole run of the loop. Prints tables and ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from benchmarks.common import finish, interleaved, table
from benchmarks.packs import flat_width, pack_of, runs_of
from experiments.runtime import set_up_jax
from scaling.store import Store
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.checkpoints import PackCheckpoints
from scaling.training.loop import Hooks, PackRun, train_pack
from scaling.training.recorder import Recorder, RunFacts
from scaling.training.trainer import CHUNK

CHECKPOINT_SECONDS = 60.0
HOOKS = Hooks(lambda step, run_ids, states: None, lambda first, last: None, lambda: False, lambda snapshot: (),
              lambda step: ())


def recorder_of(bench: Workbench, pack: PackRun, folder: Path) -> Recorder:
    """What writes a pack's rows to a fresh store."""
    program = pack.trainer.program
    facts = [RunFacts(run.run_id, run.data.tokens_per_step, 1.0, rows.learning_rate_T)
             for run, rows in zip(pack.job.runs, pack.job.tables, strict=True)]
    return Recorder(Store(folder / "store"), "pack", facts, bench.corpus(program).names, bench.bytes_per_token(program))


def whole(bench: Workbench, pack: PackRun, folder: Path) -> None:
    """The loop as a sweep runs it."""
    train_pack(pack.trainer, pack.job, recorder_of(bench, pack, folder), PackCheckpoints(folder / "kept"),
               bench.template(pack.trainer.program), CHECKPOINT_SECONDS, HOOKS)


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


def parts(bench: Workbench, pack: PackRun, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    kept = {"state": pack.start()}
    recorder, steps = recorder_of(bench, pack, folder), itertools.count(1)
    checkpoints = PackCheckpoints(folder / "checkpoints")

    def train() -> object:
        kept["state"] = pack.advance(kept["state"], 0, CHUNK)
        return kept["state"]

    def evaluate() -> object:
        kept["measured"] = pack.measure(kept["state"], 0)
        kept["state"] = pack.trainer.fresh_metrics(kept["state"])
        return kept["measured"], kept["state"]

    def log() -> None:
        step = next(steps)
        recorder.add(pack.read(step, kept["measured"]))
        recorder.flush(step)

    def save() -> None:
        checkpoints.save(pack.job.run_ids, next(steps), pack.host_states(kept["state"], pack.job.run_ids))

    return {"call": train, "evaluation": evaluate, "logging": log, "checkpoint": save}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 4), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    set_up_jax()
    bench = Workbench(cache_folder())
    pack = pack_of(bench, runs_of(options.runs), flat_width(options.runs))
    with tempfile.TemporaryDirectory() as name:
        with counted() as counts:
            whole(bench, pack, Path(name))
        functions = parts(bench, pack, Path(name))
        for function in functions.values():
            jax.block_until_ready(function())  # compiles
        took = interleaved(functions, options.rounds)
    evaluations, steps_seconds = len({0, *pack.job.evaluations}), took["call"] / CHUNK * pack.job.steps
    shares = {"evaluation": evaluations * took["evaluation"] / steps_seconds,
              "logging": evaluations * took["logging"] / steps_seconds,
              "checkpoints": took["checkpoint"] / CHECKPOINT_SECONDS}
    table([{"what": what, "seconds": value} for what, value in took.items()])
    table([{"share of the steps' time": name, "value": value} for name, value in shares.items()])
    per_call = {name: counts[name] / counts["calls"] for name in ("sent", "read")}
    finish({"runs": options.runs, "steps": pack.job.steps, "evaluations": evaluations, **shares,
            "together": sum(shares.values()), "calls": counts["calls"],
            "arrays_sent_a_call": per_call["sent"], "arrays_read_a_call": per_call["read"]})


if __name__ == "__main__":
    main()
