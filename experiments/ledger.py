"""Write results/README.md, the ledger of claims: every study kept under results/ with each claim that it tested.

python -m experiments.ledger [--results=results]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from absl import app, flags

from scaling.store import replace_durably

_RESULTS = flags.DEFINE_string("results", "results", "Folder of the studies that were kept.")
HEAD = """# Ledger of claims

Every claim that a study tested on runs of its own, whatever came of it. Written by `python -m experiments.ledger` from
`results/*/claims.csv`, which `python -m experiments.keep` leaves there beside the study's tables, figures and report.
The models are far smaller than the papers': a verdict is about the setting in its line, not about theirs. `reproduced`:
the whole interval lies on the claim's side; `not reproduced`: it lies on the other; `inconclusive`: neither, or the fit
was refused. What n counts and what the interval leaves out stands in the study's report.
"""
OTHERS = """## Kept elsewhere

- [published/](published/report.html): the papers' laws refitted to the papers' tables, constant by constant.
- [benchmarks/](benchmarks/README.md): speed, as measured, aims that were missed included.
- [early_stopping/](early_stopping/): recorded sweeps that predictive early stopping was tried on, and
  how it did there and on simulated ones.
"""
COLUMNS = ("claim", "source", "measured", "n", "verdict")


def ledger(results: Path) -> str:
    """The page, from every `claims.csv`. Raises ValueError when there is none."""
    paths = sorted(path for path in results.glob("*/claims.csv") if not path.parent.name.startswith("."))
    tables = [pd.read_csv(path) for path in paths]
    if not tables:
        raise ValueError(f"--results={results}: expected folders with claims.csv; run python -m experiments.keep first")
    counts = pd.concat(tables).verdict.value_counts()
    total = f"{sum(map(len, tables))} claims in {len(tables)} studies: " + ", ".join(
        f"{count} {name}" for name, count in counts.items()) + "."
    return "\n".join([HEAD, total, "", *map(_section, tables), OTHERS])


def _section(claims: pd.DataFrame) -> str:
    first = claims.iloc[0]
    rows = [dict(zip(COLUMNS, (row["statement"], row["source"], _effect(row), row["n"], f"**{row['verdict']}**"),
                     strict=True)) for row in claims.to_dict("records")]
    return "\n".join([
        f"## [{first.study}]({first.study}/report.html)", "",
        f"`{first.command} --workdir=runs/{first.study}`: {first.runs} runs, {first.flops:.2g} FLOPs, "
        f"{first.device_seconds / 60:.0f} minutes of training on {first.device}.", "",
        _markdown(pd.DataFrame(rows)), ""])


def _effect(row: Mapping[Any, Any]) -> str:
    """What was measured, in the study's words, with its interval if the words lack it."""
    measured = str(row["measured"])
    has_interval = "[" in measured or math.isnan(row["low"]) or math.isnan(row["high"])
    return measured if has_interval else f"{measured}; {row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
                     for line in lines)


def main(_: list[str]) -> None:
    results = Path(_RESULTS.value)
    try:
        text = ledger(results)
    except ValueError as error:
        sys.exit(str(error))
    replace_durably(results / "README.md", lambda path: path.write_text(text))
    print(results / "README.md")


if __name__ == "__main__":
    app.run(main)
