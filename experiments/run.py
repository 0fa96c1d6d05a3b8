"""Train what a sweep still lacks, then analyse and report.

python -m experiments.run --config=configs/quickstart.py --workdir=results/quickstart
Any field may be overridden: --config.model.width=48, --config.study.seeds='(0,)'. A run is trained once: started again
the command goes on where it stopped, and a widened sweep trains only what is new. SIGTERM or Ctrl-C saves and ends
with code 75: started again it goes on. The same command on many machines: --distributed, or --executor.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import analyse, report, runtime
from experiments.profiling import profiled
from scaling.config import Run
from scaling.fields import check
from scaling.store import TABLES, Store
from scaling.sweeps.early_stopping import Question
from scaling.sweeps.jobs import Settings
from scaling.sweeps.preemption import Stop
from scaling.sweeps.rows import FINAL
from scaling.sweeps.workbench import Workbench, cache_folder
from scaling.training.loop import Preempted

FLAGS = flags.FLAGS


EXECUTORS = {"local": "executor", "ray": "ray_executor", "slurm": "slurm_executor"}  # modules of scaling.sweeps


def main() -> None:
    stop = Stop()
    check(not FLAGS.distributed or FLAGS.executor == "local", "--executor", FLAGS.executor, "local with --distributed",
          "leave one of them out")
    module = "processes" if FLAGS.distributed else EXECUTORS[FLAGS.executor]
    run_sweep = importlib.import_module(f"scaling.sweeps.{module}").run_sweep
    experiment = runtime.load_experiment()
    workdir = Path(FLAGS.workdir)
    cluster = () if FLAGS.executor == "local" else (experiment.cluster,)
    question = Question(FLAGS.early_stopping, FLAGS.confidence) if FLAGS.early_stopping else None
    bench, store = Workbench(cache_folder()), Store(workdir / "store")
    with stop.saving(), profiled(Path(FLAGS.profile) if FLAGS.profile else None, stop) as interrupted:
        for sweep, last in experiment.rounds(store):
            todo = sweep.runs()
            if not last and _ended(store, todo):
                continue
            runs = run_sweep(todo, workdir, bench, Settings(FLAGS.checkpoint_seconds, keep_states=not last),
                             interrupted, question, *cluster)
            if not last and FLAGS.distributed:
                raise Preempted("the runs that decide on more have ended; the next start trains what they decide")
            if runs is None:
                return  # process 0 of several says and does the rest
    experiment.save(workdir, sweep)
    counts = ", ".join(f"{count} {status}" for status, count in runs.status.value_counts().items())
    print(f"{len(runs)} runs in {workdir}: {counts}")
    if experiment.study is not None:
        print("fitting the laws", file=sys.stderr, flush=True)
        findings = analyse.analyse(workdir)
        print(runtime.study_modules(experiment.study)[1].summary(findings))
        print(report.report(workdir, findings))


def _ended(store: Store, runs: Sequence[Run]) -> bool:
    """Whether all runs have an outcome, in a store without a damaged file: training the sweep sets those aside."""
    if any(True for name in TABLES for _ in store.damaged(name)):
        return False
    table = store.read("runs")
    return len(table) > 0 and {run.run_id for run in runs} <= set(table.run_id[table.status.isin(FINAL)])


if __name__ == "__main__":
    runtime.define_workdir()
    flags.DEFINE_float("checkpoint_seconds", 60.0, "Seconds between checkpoints.", lower_bound=0)
    flags.DEFINE_string("early_stopping", None, "Stop runs that cannot have the lowest final loss of this domain.")
    flags.DEFINE_float("confidence", 0.95, "Of all early stops together.", lower_bound=0.5, upper_bound=1)
    flags.DEFINE_enum("executor", "local", list(EXECUTORS), "Who trains: this process, a Ray cluster, SLURM jobs.")
    flags.DEFINE_bool("distributed", False, "Train together with the other processes that were given this command.")
    flags.DEFINE_string("profile", None, "Folder for a profile of a few calls of the devices, for XProf and Perfetto.")
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
