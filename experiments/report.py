"""Write the report of a finished sweep: report.html, its figures as PNG, and fits.json, from the store alone.

python -m experiments.report --workdir=results/quickstart
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from absl import flags

from experiments import analyse, runtime
from scaling.store import replace_durably

FLAGS = flags.FLAGS


def report(workdir: Path, findings: Any) -> Path:
    """Write figures and page of a study's findings, as `analyse` just left them; returns the page's path."""
    _, made = runtime.study_modules(runtime.load_study(workdir))
    mark = json.loads((workdir / "fits.json").read_text())[analyse.ANALYSED]
    page, figures = made.page(analyse.own(workdir), findings)
    for name, content in figures.items():
        replace_durably(workdir / "figures" / f"{name}.png", functools.partial(Path.write_bytes, data=content))
    path, text = workdir / "report.html", f"{page.text()}<!-- {analyse.ANALYSED}: {mark} -->\n"
    replace_durably(path, lambda temporary: temporary.write_text(text))  # last: its mark vouches for the figures too
    return path


def main() -> None:
    workdir = Path(FLAGS.workdir)
    print(report(workdir, analyse.analyse(workdir)))


if __name__ == "__main__":
    runtime.define_workdir()
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
