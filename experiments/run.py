"""Train what a sweep still lacks, then analyse and report.

python -m experiments.run --config=configs/quickstart.py --workdir=results/quickstart
Any field may be overridden: --config.model.width=48, --config.study.seeds='(0,)'. A run is trained once: started again
the command goes on where it stopped, and a widened sweep trains only what is new.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from experiments import analyse, report, runtime
from scaling.sweeps.executor import run_sweep
from scaling.sweeps.jobs import Settings
from scaling.sweeps.workbench import Workbench, cache_folder

FLAGS = flags.FLAGS


def main() -> None:
    experiment = runtime.load_experiment()
    workdir = Path(FLAGS.workdir)
    runs = run_sweep(experiment.sweep.runs(), workdir, Workbench(cache_folder()),
                     Settings(FLAGS.checkpoint_seconds), interrupted=lambda: False)
    experiment.save(workdir)
    counts = ", ".join(f"{count} {status}" for status, count in runs.status.value_counts().items())
    print(f"{len(runs)} runs in {workdir}: {counts}")
    if experiment.study is not None:
        print("fitting the laws", file=sys.stderr, flush=True)
        findings = analyse.analyse(workdir)
        print(runtime.study_modules(experiment.study)[1].summary(findings))
        print(report.report(workdir, findings))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.DEFINE_float("checkpoint_seconds", 60.0, "Seconds between checkpoints.", lower_bound=0)
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
