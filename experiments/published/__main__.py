"""Refits every published table at hand: `python -m experiments.published [--only=chinchilla,schedules] [--out=FOLDER]`.

Writes rows.csv (paper figure against ours, interval, objective, verdict, seconds), contests.csv (laws ranked by
held-out error at the largest scale), the figures, and report.html with all of it. With --only the other families' rows
and figures stay as they were.
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
    rows, contests = _merged(out / "rows.csv", rows, "%.8g"), _merged(out / "contests.csv", contests, "%.6g")
    for family in _ONLY.value:
        for old in out.glob(f"{family}_*.png"):
            old.unlink()
    for name, figure in figures.items():
        (out / f"{name}.png").write_bytes(png(figure))
    drawn = {path.stem: path.read_bytes() for path in sorted(out.glob("*.png"))}
    (out / "report.html").write_text(page(rows, contests, drawn))
    counts = rows["verdict"].value_counts()
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}; written to {out}")


def _merged(path: Path, fresh: pd.DataFrame, digits: str) -> pd.DataFrame:
    """The fresh rows and those of other families already in the file, in the order of `FAMILIES`; written and read."""
    if path.exists():
        old = pd.read_csv(path)
        fresh = pd.concat([fresh, old[~old["family"].isin(_ONLY.value)]], ignore_index=True)
    place = fresh["family"].map(FAMILIES.index)
    fresh.loc[place.sort_values(kind="stable").index].to_csv(path, index=False, float_format=digits)
    return pd.read_csv(path)


if __name__ == "__main__":
    app.run(main)
