"""Fit the laws of a study to the store of a finished sweep, decide, and write fits.json.

python -m experiments.analyse --workdir=results/quickstart
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from experiments import runtime
from scaling.store import Store, replace_durably

FLAGS = flags.FLAGS


def analyse(workdir: Path) -> Any:
    """The study's findings from the workdir's store; leaves them in fits.json."""
    study = runtime.load_study(workdir)
    study_module, page = runtime.study_modules(study)
    findings = study_module.analyse(Store(workdir / "store"), study)
    text = json.dumps(page.record(findings), indent=1)
    replace_durably(workdir / "fits.json", lambda path: path.write_text(text))
    return findings


def main() -> None:
    workdir = Path(FLAGS.workdir)
    findings = analyse(workdir)
    print(runtime.study_modules(runtime.load_study(workdir))[1].summary(findings))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
