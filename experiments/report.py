"""Write the report of a finished sweep: report.html, its figures as PNG, and fits.json, from the store alone.

python -m experiments.report --workdir=results/quickstart
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from absl import flags

from experiments import analyse, runtime
from scaling.store import Store, replace_durably

FLAGS = flags.FLAGS


def report(workdir: Path, findings: Any) -> Path:
    """Write the page and figures of a study's findings; returns the page's path."""
    _, made = runtime.study_modules(runtime.load_study(workdir))
    page, figures = made.page(Store(workdir / "store"), findings)
    for name, content in figures.items():
        replace_durably(workdir / "figures" / f"{name}.png", functools.partial(Path.write_bytes, data=content))
    path = workdir / "report.html"
    replace_durably(path, lambda temporary: temporary.write_text(page.text()))
    return path


def main() -> None:
    workdir = Path(FLAGS.workdir)
    print(report(workdir, analyse.analyse(workdir)))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
