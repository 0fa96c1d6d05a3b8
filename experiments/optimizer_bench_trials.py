"""Train the trials of digits of an optimizer bench, and time its language model's programs in turn.

python -m experiments.optimizer_bench_trials --config=configs/optimizer_bench.py --workdir=runs/optimizer_bench
Then experiments.run with the same flags trains the language models and analyses all. Both train only what the workdir
lacks.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import pandas as pd
from absl import flags

from experiments import runtime
from experiments.bench_design import Digit, Settings, language_point, scored, settings_of, trial, tuning
from experiments.bench_runs import best_trials
from scaling.config import Run
from scaling.fields import check
from scaling.store import Store
from scaling.sweeps.lock import workdir_lock
from scaling.sweeps.plan import Width
from scaling.sweeps.sweep import overlay
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.loop import PackJob, PackRun
from scaling.training.state import TrainState
from scaling.training.tables import Stream, run_tables
from scaling.workloads.digits import digits
from scaling.workloads.race import STEP_SECONDS, race
from scaling.workloads.trainer import TrialTrainer
from scaling.workloads.trial import Trial

FLAGS = flags.FLAGS
ROUNDS, STEPS = 7, 40  # calls of a program that are timed, and their length
TIMED = "timed-"  # begins the names of files of such times


def train(s: Settings, task: Digit, store: Store) -> int:
    """All trials of a workload of digits, then the retrained ones that they decide on; returns how many were left."""
    data, trainers = digits(), dict[Trial, TrialTrainer]()
    count = race([trial(s, task.workload, at) for at in (*tuning(s), *scored(s))], store, data, trainers)
    best = best_trials(store, s, task)
    return count + race([trial(s, task.workload, at) for at in best], store, data, trainers)


@dataclasses.dataclass
class Timed:
    """A program of the language models on one lane a device, its runs, and the seconds of its calls."""

    runs: list[Run]
    pack: PackRun
    state: TrainState
    seconds: list[float] = dataclasses.field(default_factory=list)

    def call(self) -> None:
        """STEPS steps, timed."""
        begin = time.perf_counter()
        self.state = jax.block_until_ready(self.pack.advance(self.state, 0, STEPS))
        self.seconds.append(time.perf_counter() - begin)


def started(runs: list[Run], bench: Workbench) -> Timed:
    """A pack of copies of the first run, one a device, compiled and at its start."""
    run = runs[0]
    program, windows = run.program, bench.windows(run.program)
    width = Width(lanes=len(jax.local_devices()), vmap=1, data=1)
    tables = [run_tables(run, windows, Stream.start(len(windows.by_domain)))] * width.lanes
    pack = PackRun(bench.trainer(program, width),
                   PackJob([run] * width.lanes, range(width.lanes), tables, windows, (), {}, None))
    made = Timed(runs, pack, pack.start())
    made.call()
    made.seconds.clear()  # the call that compiled
    return made


def time_in_turn(runs: Iterable[Run], store: Store, bench: Workbench) -> None:
    """Device seconds a step of every program, ROUNDS calls of each in turn, as diagnostics of all its runs."""
    members: dict[Run, list[Run]] = {}
    for run in runs:
        members.setdefault(run.program, []).append(run)
    programs = [started(listed, bench) for listed in members.values()]
    for _ in range(ROUNDS):
        for program in programs:
            program.call()
    for program in programs:
        layout = program.pack.trainer.layout
        a_step = layout.devices / (STEPS * layout.lanes)
        store.write("diagnostics", f"{TIMED}{program.runs[0].run_id}", pd.DataFrame([
            {"run_id": run.run_id, "step": index, "name": STEP_SECONDS, "value": seconds * a_step}
            for run in program.runs for index, seconds in enumerate(program.seconds)]))


def to_time(s: Settings, base: Run) -> list[Run]:
    """The first run of every program on every language model."""
    runs = [(language.name, overlay(base, language_point(s, language, at)))
            for language in s.language for at in scored(s)]
    return list({(name, run.program): run for name, run in reversed(runs)}.values())[::-1]


def main() -> None:
    experiment = runtime.load_experiment()
    check(experiment.study is not None, "study", None, "the settings of an optimizer bench", "see the configuration")
    s, workdir = settings_of(experiment.study or {}), Path(FLAGS.workdir)
    store = Store(workdir / "store")
    with workdir_lock(workdir):
        for task in s.digits:
            begin = time.perf_counter()
            count = train(s, task, store)
            print(f"{task.name}: {count} trials in {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        if not any(name.startswith(TIMED) for name in store.names("diagnostics")):
            print("timing the programs of the language models in turn", file=sys.stderr, flush=True)
            time_in_turn(to_time(s, experiment.sweep.base), store, Workbench(cache_folder()))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
