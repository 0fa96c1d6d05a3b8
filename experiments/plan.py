"""Say what a sweep will train and what it will cost, before anything is trained.

python -m experiments.plan --config=configs/quickstart.py [--workdir=results/quickstart] [--config.model.width=48]
Time is measured: each program is compiled and a few of its steps are timed on this device, once (kept in the cache).
With --workdir, what the workdir already holds is left out of the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from absl import flags

from experiments import runtime
from scaling.config import Run
from scaling.models.counts import count
from scaling.models.running import split
from scaling.optimizers.groups import groups
from scaling.sweeps.estimate import estimate
from scaling.sweeps.workbench import Workbench, cache_folder

FLAGS = flags.FLAGS


def described_groups(runs: list[Run], params: Any) -> str:
    """Lines on the parameter groups of one program: pattern, treatment, factors of rate and decay, all that they hold.
    `runs`: its runs, whose factors may differ; `params`: as shapes.
    """
    program = runs[0].program
    spec, lines = program.optimizer, []
    for group in groups(spec, program.model, split(params)[0]).values():
        method = spec.name if group.treatment == "named" else group.treatment
        acts = [method] if group.treatment == "frozen" else [
            method, f"rate x {_factors(runs, 'group_rates', group.place)}",
            f"decay x {_factors(runs, 'group_decays', group.place)}"]
        if program.model.base is not None:
            power = f"(width_exponent - {group.width.less:g})" if group.width.less else "width_exponent"
            acts.append(f"width: rate x {group.width.rate:g}, decay x {group.width.decay:g}^{power}")
        lines.append(f"  {group.pattern!r}: {', '.join(acts)}")
        lines += [f"    {path} {'x'.join(map(str, shape))}" for path, shape in group.shapes.items()]
    return "\n".join(lines)


def _factors(runs: list[Run], field: str, place: int) -> str:
    given = (getattr(run.optimizer, field) for run in runs)
    values = {1.0 if factors is None else factors[place] for factors in given}
    return " or ".join(f"{value:g}" for value in sorted(values))


def _print_groups(runs: list[Run], bench: Workbench) -> None:
    for program in dict.fromkeys(run.program for run in runs):
        of_program, model = [run for run in runs if run.program == program], program.model
        print(f"\n{len(of_program)} runs of width {model.width}, depth {model.depth}, {program.optimizer.name}:")
        print(described_groups(of_program, bench.template(program).params))


def main() -> None:
    experiment = runtime.load_experiment()
    runs = experiment.sweep.runs()
    runtime.set_precision(runs)
    bench = Workbench(cache_folder())
    workdir = Path(FLAGS.workdir) if FLAGS.workdir else None
    rows = estimate(runs, bench, workdir)
    print(pd.DataFrame([row.described() for row in rows]).to_string(index=False))
    _print_groups(runs, bench)
    sizes = sorted({count(run.model, bench.corpus(run.program).vocabulary, run.data.sequence).total for run in runs})
    left = [row for row in rows if row.runs_left]
    print(f"\n{len(runs)} runs of {len(rows)} groups and {len({run.program for run in runs})} programs, "
          f"{len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,} parameters")
    print(f"tokens {sum(row.tokens for row in rows):.3g}, FLOPs {sum(row.flops for row in rows):.3g}, "
          f"memory a device {max(row.bytes_per_device for row in rows) / 2**20:.0f} MiB")
    if experiment.follow_ups:
        print(f"{len(experiment.follow_ups)} more rounds of runs are decided by these, and are not counted here")
    if experiment.sweep.pinned:
        print(f"given on the command line, in place of axes where they set it: {dict(experiment.sweep.pinned)}")
    print(f"to train: {sum(row.runs_left for row in left)} runs, about {sum(row.seconds_left for row in left):.0f} s "
          f"of training and {sum(row.compile_seconds for row in left):.0f} s of compilation on this device")


if __name__ == "__main__":
    runtime.define_workdir(required=False)
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
