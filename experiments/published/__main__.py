"""Refits every published table at hand: `python -m experiments.published [--only=chinchilla,schedules] [--out=FOLDER]`.

Writes rows.csv (paper figure against ours, interval, objective, verdict, seconds), contests.csv (laws ranked by
held-out error at the largest scale), the figures, and report.html with all of it.
"""

import dataclasses
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

import pandas as pd
from absl import app, flags
from matplotlib.figure import Figure

from experiments.published.page import page
from experiments.reference import AbsentDataError, reference_data
from scaling.figures.style import png

FAMILIES = (
    "chinchilla",
    "mixtures",
    "regmix",
    "schedules",
    "steplaw",
    "repetition",
    "learning_curves",
    "algoperf",
)
_ONLY = flags.DEFINE_list("only", list(FAMILIES), "Families of tables to refit.")
_OUT = flags.DEFINE_string("out", "results/published", "Folder to write to.")


def main(_: list[str]) -> None:
    """Refit, print and write."""
    if unknown := set(_ONLY.value) - set(FAMILIES):
        sys.exit(f"--only: no family {sorted(unknown)[0]!r}; the families are {', '.join(FAMILIES)}")
    try:
        data = reference_data()
    except AbsentDataError as error:
        sys.exit(str(error))
    out = Path(_OUT.value)
    rows, contests, figures = [], [], dict[str, Figure]()
    for family in _ONLY.value:
        began = time.perf_counter()
        module = importlib.import_module(f"experiments.published.{family}")
        found, contest, drawn = _of_family(module, data)
        rows.append(found.assign(family=family))
        contests.append(contest.assign(family=family))
        figures |= {f"{family}_{name}": figure for name, figure in drawn.items()}
        print(f"{family}: {len(found)} figures, {time.perf_counter() - began:.0f} s", flush=True)
    _write(out, pd.concat(rows, ignore_index=True), pd.concat(contests, ignore_index=True), figures)


def _of_family(module: ModuleType, data: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Figure]]:
    rows = pd.DataFrame([dataclasses.asdict(row) for row in module.rows(data)])
    contest = module.contest(data) if hasattr(module, "contest") else pd.DataFrame()
    return rows, contest, module.figures(data) if hasattr(module, "figures") else {}


def _write(out: Path, rows: pd.DataFrame, contests: pd.DataFrame, figures: dict[str, Figure]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "rows.csv", index=False, float_format="%.8g")
    contests.to_csv(out / "contests.csv", index=False, float_format="%.6g")
    drawn = {name: png(figure) for name, figure in figures.items()}
    for name, image in drawn.items():
        (out / f"{name}.png").write_bytes(image)
    (out / "report.html").write_text(page(rows, contests, drawn))
    counts = rows["verdict"].value_counts()
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}; written to {out}")


if __name__ == "__main__":
    app.run(main)
