"""Fit the laws of a study to the store of a finished sweep, decide, and write fits.json.

python -m experiments.analyse --workdir=results/quickstart
Of a workdir that several configurations were run in, only the runs of the one that was run last are read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from absl import flags

from experiments import runtime
from experiments.workdir import sweep_runs
from scaling.seal import read_json
from scaling.store import Part, Store, replace_durably

FLAGS = flags.FLAGS
ANALYSED = "analysed"  # names the fingerprint in fits.json and report.html
TRAINED = ["run_id", "status", "wall_seconds"]  # tell a run that was trained again


def analyse(workdir: Path) -> Any:
    """The study's findings from its sweep's runs in the workdir's store; leaves them in fits.json."""
    study = runtime.load_study(workdir)
    study_module, page = runtime.study_modules(study)
    store = own(workdir)
    mark = fingerprint(workdir, store)  # before the study reads: what comes meanwhile is not vouched for
    findings = study_module.analyse(store, study)
    text = json.dumps({**page.record(findings), ANALYSED: mark}, indent=1)
    replace_durably(workdir / "fits.json", lambda path: path.write_text(text))
    return findings


def own(workdir: Path) -> Part:
    """The store as the runs of this sweep left it, with those that its study adds."""
    study = runtime.load_study(workdir)
    also = getattr(runtime.study_modules(study)[0], "also", lambda study: ())
    return Part(Store(workdir / "store"), {*sweep_runs(workdir), *also(study)})


def fingerprint(workdir: Path, store: Store) -> str:
    """What an analysis depends on, in short: settings, which runs, how each ended and in which training."""
    runs = store.read("runs")
    rows = sorted(map(list, runs[TRAINED].itertuples(index=False))) if len(runs) else []
    text = json.dumps([read_json(workdir / "experiment.json"), rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    workdir = Path(FLAGS.workdir)
    findings = analyse(workdir)
    print(runtime.study_modules(runtime.load_study(workdir))[1].summary(findings))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
