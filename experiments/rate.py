"""Find a learning rate for a configuration: a range test, then a sweep of peak rates around what it found.

python -m experiments.rate --config=configs/base.py --workdir=runs/rate --config.training.duration.steps=400

Range test: one run a seed whose rate grows every step from --lowest to --highest; lr_max is the largest rate at which
its smoothed loss is within 1 % of the least. Sweep: the configuration itself at --rates peaks a factor of 2 apart, the
highest 2 lr_max, with the same seeds; a quadratic in the log rate gives the optimum. Started again, the command trains
only what is missing; analyse and report make the answer anew. A stage of the configuration file plays no part.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

from experiments import analyse as analysis
from experiments import report, runtime
from experiments.recommended_schedule import section
from experiments.statistics import Interval, t_interval
from scaling import fields
from scaling.fields import ConfigError, check, static
from scaling.fitting.optimum import Optimum, sweep_optimum
from scaling.fitting.range_test import RangeTest, growing_rates, range_test
from scaling.store import Part, Store
from scaling.sweeps import grid
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.jobs import Settings as Training
from scaling.sweeps.preemption import Stop
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.workbench import Workbench, cache_folder

FLAGS = flags.FLAGS
GROWTHS = ("exponential", "linear")
SPACING = 2.0  # factor between the peaks of the sweep
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command was given, and the runs of its two parts by run_id."""

    name: str = static()
    lowest: float = static()
    highest: float = static()
    steps: int = static()  # of a range test
    growth: str = static(choices=GROWTHS)
    rates: int = static()
    seeds: tuple[int, ...] = static()
    range_runs: tuple[str, ...] = static()
    sweep_runs: tuple[str, ...] = static()

    def __post_init__(self) -> None:
        check(0 < self.lowest < self.highest < math.inf, "--lowest, --highest", (self.lowest, self.highest),
              "rates with 0 < lowest < highest", "use 1e-6 and 1")
        check(self.rates >= 3, "--rates", self.rates, "3 or more, for a quadratic", "use 8")
        check(len(set(self.seeds)) == len(self.seeds) > 0, "--seeds", self.seeds, "different seeds, one or more",
              "use 0,1,2")


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """`tests`: range tests by seed. `highest`: lr_max, geometric mean and Student's interval over the tests that were
    not refused, nan where all were. `sweep`: seed, lr, loss (nan: diverged). `optimum`: of the sweep.
    """

    settings: Settings
    tests: dict[int, RangeTest]
    highest: Interval
    sweep: pd.DataFrame
    optimum: Optimum


def range_stage(s: Settings) -> Stage:
    """One run a seed at growing rates, its training loss kept at every step."""
    rate_T = growing_rates(s.lowest, s.highest, s.steps, s.growth)
    test = {"schedule": section(rate_T), "training.duration": {"steps": s.steps}, "evaluation.points": None,
            "evaluation.steps": tuple(range(1, s.steps + 1)), "evaluation.windows": 1}
    return Stage("range", grid.product([test], {"training.seed": s.seeds}))


def sweep_stages(s: Settings, store: Store) -> Sequence[Stage]:
    """The configuration at peaks around the range tests' lr_max. Raises ConfigError where every test was refused."""
    tests = range_tests(store)
    value = highest(tests).value
    refusals = [f"{test.refusal}" for test in tests.values()]
    check(not math.isnan(value), "--lowest, --highest", (s.lowest, s.highest), "a range in which the loss falls and "
          f"then rises, but {refusals[0]}", "widen the range")
    rates = [float(f"{value * SPACING ** (1 - k):.2g}") for k in reversed(range(s.rates))]
    return [Stage("sweep", grid.product({"schedule.peak": rates}, {"training.seed": s.seeds}))]


def range_tests(store: Store) -> dict[int, RangeTest]:
    """The range tests that a store holds, by seed: training loss against the rate that acted."""
    runs, curves = store.read("runs"), store.read("curves")
    tests = {}
    for run in runs.sort_values("training.seed").to_dict("records"):
        shares_T = np.array(json.loads(run["schedule.values"]))
        rows = curves[(curves.run_id == run["run_id"]) & (curves.split == "train")].set_index("step")
        loss_T = rows.loss.reindex(np.arange(1, len(shares_T) + 1)).to_numpy()  # nan once it diverged
        tests[int(run["training.seed"])] = range_test(run["schedule.peak"] * shares_T, loss_T)
    return tests


def highest(tests: Mapping[int, RangeTest]) -> Interval:
    """lr_max over seeds."""
    logs = [math.log(test.highest) for test in tests.values() if test.refusal is None]
    return Interval(*np.exp(t_interval(logs, LEVEL)).tolist()) if logs else Interval(math.nan, math.nan, math.nan)


def swept(store: Store) -> pd.DataFrame:
    """Last held-out loss of every run, the mean over domains by their last shares; nan for a diverged run."""
    runs, curves = store.read("runs"), store.read("curves")
    held_out = curves[curves.split == "validation"].set_index(["run_id", "step", "domain"]).loss
    rows = []
    for run in runs.to_dict("records"):
        _, shares = json.loads(run["data.mixture"])[-1]
        loss = math.nan
        if run["status"] == "done":
            loss = sum(share * held_out[run["run_id"], run["steps"], name] for name, share in shares if share > 0)
        rows.append({"seed": run["training.seed"], "lr": run["schedule.peak"], "loss": loss})
    return pd.DataFrame(rows).sort_values(["lr", "seed"], ignore_index=True)


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Both parts' answers from the store."""
    s = fields.convert(Settings, study, "study")
    tests, sweep = range_tests(Part(store, s.range_runs)), swept(Part(store, s.sweep_runs))
    return Findings(s, tests, highest(tests), sweep, sweep_optimum(sweep, level=LEVEL))


def asked(values: Any) -> Settings:
    """What the flags ask for, the runs still open. Raises ConfigError."""
    try:
        seeds = tuple(map(int, values.seeds))
    except ValueError as error:
        raise ConfigError(f"--seeds = {','.join(values.seeds)}: expected whole numbers; use 0,1,2") from error
    return fields.convert(Settings, {
        "name": "rate", "lowest": values.lowest, "highest": values.highest, "steps": values.range_steps,
        "growth": values.growth, "rates": values.rates, "seeds": seeds, "range_runs": (), "sweep_runs": ()}, "study")


def main() -> None:
    stop, workdir = Stop(), Path(FLAGS.workdir)
    s, training = asked(FLAGS), Training(FLAGS.checkpoint_seconds)
    given = runtime.load_experiment()
    first = Sweep(given.sweep.base, (range_stage(s),))
    experiment = runtime.Experiment(first, None, follow_ups=(functools.partial(sweep_stages, s),))
    bench, store = Workbench(cache_folder()), Store(workdir / "store")
    with stop.saving():
        for sweep, _ in experiment.rounds(store):
            run_sweep(sweep.runs(), workdir, bench, training, stop)
    ids = {run.run_id: None for run in sweep.runs()}
    range_runs = tuple(run.run_id for run in first.runs())
    study = dataclasses.asdict(dataclasses.replace(
        s, range_runs=range_runs, sweep_runs=tuple(run_id for run_id in ids if run_id not in range_runs)))
    chosen = [f"--{name}={FLAGS[name].value}" for name in ("lowest", "highest", "range_steps", "growth", "rates")]
    command = shlex.join([*shlex.split(given.command), *chosen, f"--seeds={','.join(FLAGS.seeds)}"])
    dataclasses.replace(experiment, study=study, command=command.replace("experiments.run", "experiments.rate")).save(
        workdir, sweep)
    findings = analysis.analyse(workdir)
    print(runtime.study_modules(study)[1].summary(findings))
    print(report.report(workdir, findings))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.DEFINE_float("lowest", 1e-5, "First rate of the range test.")
    flags.DEFINE_float("highest", 1.0, "Last rate of the range test.")
    flags.DEFINE_integer("range_steps", 300, "Steps of a range test.", lower_bound=2)
    flags.DEFINE_enum("growth", "exponential", GROWTHS, "How the rate of a range test grows.")
    flags.DEFINE_integer("rates", 8, "Peaks of the sweep.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of both.")
    flags.DEFINE_float("checkpoint_seconds", 60.0, "Seconds between checkpoints.", lower_bound=0)
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
