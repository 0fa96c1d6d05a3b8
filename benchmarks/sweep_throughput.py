"""32 runs as a pack against the textbook trainer, one run at a time: milliseconds a step of one run, share of the peak.

python -m benchmarks.sweep_throughput [--sizes 0 1 2 3] [--rounds=7]
Bytes of prose, GELU, AdamW, float32, heads 16 wide. The pack's width and way are those a sweep would measure and take.
Both train the same runs from the same parameters on the same batches: losses of the first steps are compared before
anything is timed. Pack and textbook are timed in turn, compiled before the clock starts; the textbook's batches lie
ready in host memory. `read` is the textbook that reads its loss after every step, as scripts that print it do: it waits
for each step, which the textbook that `ratio` is of never does. FLOPs are the model's exact count over the peak of
matrix products on all devices together.
Prints a table and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import textbook
from benchmarks.common import finish, interleaved, matmul_peak, table
from benchmarks.packs import pack_of, runs_of
from experiments.runtime import set_up_jax
from scaling.data.batches import batch
from scaling.models.counts import count
from scaling.sweeps.tuning import Tuner
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.loop import PackRun
from scaling.training.state import DATA

SIZES = ((16, 2, 32, 8), (32, 2, 64, 16), (64, 2, 128, 16), (128, 4, 128, 16))  # width, depth, sequence, batch
TARGETS = (5.0, 4.0, 4.0, 3.2)
RUNS, HEAD_WIDTH, STEPS = 32, 16, 128
COMPARED = 4  # steps whose losses are compared
TOLERANCE = 1e-5  # of a loss, relative
SECONDS = 1.0  # that one timed call takes, about


def shape(width: int, depth: int, sequence: int, batch_size: int) -> dict[str, Any]:
    """Changes to configs/base.py for a size."""
    return {"model.width": width, "model.depth": depth, "model.heads": max(1, width // HEAD_WIDTH),
            "data.sequence": sequence, "data.batch": batch_size, "training.duration": {"steps": STEPS},
            "schedule.warmup": {"steps": 1}, "evaluation.windows": 8}


def host_batches(pack: PackRun, run: int, steps: int) -> list[np.ndarray]:
    """Windows of S + 1 tokens that a run of the pack draws in its first steps, [B, S + 1] each, on the host."""
    rows, config = pack.job.tables[run], pack.job.runs[run]
    key = jax.random.fold_in(jax.random.key(config.training.seed), DATA)
    hyper = jax.tree.map(lambda x: np.asarray(x)[pack.places_R[run]], pack.hyper)
    draw = jax.jit(functools.partial(batch, sequence=config.data.sequence))
    slots_B = np.arange(config.data.batch, dtype=np.int32)
    at = rows.rows(0, steps, steps, pack.dtype)
    tokens = jax.tree.map(np.asarray, pack.trainer.tokens)
    return [np.asarray(draw(tokens, key, hyper.windows_K, at.drawn_CxK[step], at.counts_CxK[step], slots_B))
            for step in range(steps)]


class Size:
    """Pack and textbook trainer of one size."""

    def __init__(self, bench: Workbench, sizes: tuple[int, int, int, int]) -> None:
        self.runs = runs_of(RUNS, **shape(*sizes))
        self.program, tuner = self.runs[0].program, Tuner(bench)
        self.width = tuner.speed(self.runs).width
        self.pack = pack_of(bench, self.runs, self.width)
        self.vocabulary = bench.corpus(self.program).vocabulary
        self.batches = host_batches(self.pack, 0, COMPARED)
        self.state = self.pack.start()
        first = self.pack.host_states(self.state, [self.runs[0].run_id])
        params = jax.tree.map(lambda leaf: leaf[0], first.params)
        rates_T = jnp.asarray(self.pack.job.tables[0].learning_rate_T, jnp.float32)
        self.textbook = textbook.Trainer(self.runs[0], self.vocabulary, rates_T, params)

    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Training losses of the first run's first steps, nats/token: the pack's, the textbook's."""
        sums = [0.0]
        for step in range(COMPARED):
            self.state = self.pack.advance(self.state, step, step + 1)
            sums.append(float(np.asarray(self.state.metrics.loss)[self.pack.places_R[0]]))
        return np.diff(sums), np.array([float(self.textbook.step(tokens_BxT)) for tokens_BxT in self.batches])

    def train_pack(self, steps: int) -> object:
        """Train all runs for so many steps."""
        self.state = self.pack.advance(self.state, 0, steps)
        return self.state

    def train_textbook(self, steps: int, read: bool = False) -> object:
        """Train one run for so many steps; `read`: every loss is read before the next step."""
        for tokens_BxT in itertools.islice(itertools.cycle(self.batches), steps):
            loss = self.textbook.step(tokens_BxT)
            if read:
                float(loss)
        return loss

    def milliseconds(self, rounds: int) -> dict[str, float]:
        """A step of one run, by the way that trains it."""
        ways = {"pack": self.train_pack, "textbook": self.train_textbook,
                "read": functools.partial(self.train_textbook, read=True)}
        one = interleaved({name: functools.partial(train, 1) for name, train in ways.items()}, 2)
        steps = {name: int(np.clip(SECONDS / took, 1, STEPS)) for name, took in one.items()}
        took = interleaved({name: functools.partial(train, steps[name]) for name, train in ways.items()}, rounds)
        return {name: 1e3 * took[name] / steps[name] / (RUNS if name == "pack" else 1) for name in ways}


def measure(bench: Workbench, sizes: tuple[int, int, int, int], target: float, peak: float, rounds: int) -> dict:
    """One size's row. Ends the program where pack and textbook do not compute the same."""
    size = Size(bench, sizes)
    ours, theirs = size.losses()
    difference = float(np.max(np.abs(ours / theirs - 1)))
    if not difference <= TOLERANCE:
        raise SystemExit(f"{sizes}: losses differ by {difference:.1e}, expected at most {TOLERANCE:.0e}: {ours}, "
                         f"{theirs}")
    step_ms = size.milliseconds(rounds)
    pack, single = step_ms["pack"], step_ms["textbook"]
    flops = count(size.program.model, size.vocabulary, sizes[2]).flops_exact * size.program.data.tokens_per_step
    bench.forget(size.program)
    return {"width": sizes[0], "depth": sizes[1], "sequence": sizes[2], "batch": sizes[3], "vmap": size.width.vmap,
            "pack_ms": pack, "textbook_ms": single, "ratio": single / pack, "target": target,
            "share_of_peak": flops / (1e-3 * pack) / peak, "textbook_share": flops / (1e-3 * single) / peak,
            "read_ms": step_ms["read"], "read_ratio": step_ms["read"] / pack, "loss_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=range(len(SIZES)), help="places in SIZES")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    set_up_jax()
    bench = Workbench(cache_folder())
    peak = matmul_peak("float32", jax.local_devices())
    rows = [measure(bench, SIZES[place], TARGETS[place], peak, options.rounds) for place in options.sizes]
    table(rows)
    finish({"runs": RUNS, "devices": len(jax.local_devices()), "peak_flops": peak, "sizes": rows})


if __name__ == "__main__":
    main()
