"""Say what a sweep will train and what it will cost, before anything is trained.

python -m experiments.plan --config=configs/quickstart.py [--workdir=results/quickstart] [--config.model.width=48]
Time is measured: each program is compiled and a few of its steps are timed on this device, once (kept in the cache).
With --workdir, what the workdir already holds is left out of the time.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from absl import flags

from experiments import runtime
from scaling.models.counts import count
from scaling.sweeps.estimate import estimate
from scaling.sweeps.workbench import Workbench, cache_folder

FLAGS = flags.FLAGS


def main() -> None:
    experiment = runtime.load_experiment()
    runs = experiment.sweep.runs()
    runtime.set_precision(runs)
    bench = Workbench(cache_folder())
    workdir = Path(FLAGS.workdir) if FLAGS.workdir else None
    rows = estimate(runs, bench, workdir)
    print(pd.DataFrame([row.described() for row in rows]).to_string(index=False))
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
