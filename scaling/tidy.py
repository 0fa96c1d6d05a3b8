"""The tidy table of a sweep: held-out losses beside what each run was; laws are fitted to it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling.store import StoreError

KEYS = ["run_id", "domain"]
LOGGED = ["step", "tokens", "flops", "lr", "loss", "loss_se", "bits_per_byte"]


def tidy(runs: pd.DataFrame, curves: pd.DataFrame, *, logged: bool = False) -> pd.DataFrame:
    """One row a run and held-out domain, at the run's end, or with `logged` one at each evaluated step, 0 included.

    `runs`, `curves`: those tables of a store. Columns: run_id, domain; step, tokens, flops, lr, loss, loss_se and
    bits_per_byte of the evaluation, a branch's counted from its own start; `share_DOMAIN`, the mixture, nan where it
    changes in the run; all other columns of `runs` (`params_non_embedding`, `status`, `schedule.peak`, ...). At the end
    of a run that diverged the loss is inf, of one that has not ended otherwise (`status`) nan: no run that was ever
    evaluated is left out. A logged step under a decaying schedule is no end of a shorter run: its loss lies above what
    that run would reach.

    Raises StoreError for tables without runs or held-out losses.
    """
    held_out = curves[curves.split == "validation"] if len(curves) else curves
    if not len(runs) or not len(held_out):
        raise StoreError(f"{len(runs)} runs and {len(held_out)} held-out losses: expected both; run the sweep first")
    own = [name for name in LOGGED if name in held_out]  # a study may keep fewer
    facts = pd.concat([runs.drop(columns=own, errors="ignore"), _shares(runs)], axis=1)
    if not logged:
        ends = held_out[KEYS].drop_duplicates().merge(runs[["run_id", "steps"]].rename(columns={"steps": "step"}))
        held_out = ends.merge(held_out, on=[*KEYS, "step"], how="left")
    rows = held_out[[*KEYS, *own]].merge(facts, on="run_id")
    if not logged:
        unended = np.where(rows.status == "diverged", np.inf, np.nan)
        rows["loss"] = np.where(rows.status == "done", rows.loss, unended)
    return rows.sort_values(["run_id", "domain", "step"], ignore_index=True)


def _shares(runs: pd.DataFrame) -> pd.DataFrame:
    """`share_DOMAIN` of each run: 0 for a domain that it leaves out, nan where a phase or a mixer moves them."""
    mixed = runs["data.mixture"].notna() if "data.mixture" in runs else pd.Series(False, runs.index)
    fixed = mixed & runs["mixer.name"].isna() if "mixer.name" in runs else mixed
    found: dict[object, Mapping[str, float]] = {}
    for index, text in runs.loc[fixed, "data.mixture"].items() if fixed.any() else ():
        phases = json.loads(text)
        if len(phases) == 1:
            found[index] = dict(phases[0][1])
    names = sorted({name for shares in found.values() for name in shares})
    table = {f"share_{name}": [found[i].get(name, 0.0) if i in found else np.nan for i in runs.index] for name in names}
    return pd.DataFrame(table, index=runs.index)
