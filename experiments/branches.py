"""Branches from shared trunks into a mixture of an old domain and a new one, as a table, and what sharing saved."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd

from scaling.fields import ConfigError
from scaling.store import Store


def branches(store: Store, target: str) -> pd.DataFrame:
    """One row a branch into `target`, held-out domain and logged step after the start.

    Columns: run_id, seed, N, flops_per_token, width, share (of the target), domain, step, D (tokens), loss, change
    (against the own trunk), start, last. `loss` is the mean trunk's loss of that size and domain plus the run's change:
    the level without the accident of its trunk. N counts parameters without embeddings. A diverged branch has no rows.

    Raises ConfigError when the store holds no finished branch into `target`.
    """
    runs, curves = store.read("runs"), store.read("curves")
    if len(runs):
        runs = runs[runs.parent_id.notna() & (runs.status == "done")]
        runs = runs.assign(share=runs["data.mixture"].map(_shares).map(lambda shares: shares.get(target)))
        runs = runs[runs.share.notna()]
    if not len(runs):
        raise ConfigError(f"store {store.root}: expected finished branches into {target!r} to analyse; run the sweep "
                          "to its end")
    facts = pd.DataFrame({
        "run_id": runs.run_id, "seed": runs["training.seed"], "N": runs.params_non_embedding.astype(float),
        "flops_per_token": runs.flops_per_token, "width": runs["model.width"], "share": runs.share.astype(float)})
    table = curves[curves.split == "validation"].merge(facts, on="run_id")
    keys = ["run_id", "domain"]
    table = table[table.step > 0].join(table[table.step == 0].set_index(keys).loss.rename("start"), on=keys)
    table["change"] = table.loss - table.start
    table["loss"] = table.groupby(["N", "domain"]).start.transform("mean") + table.change
    table["last"] = table.step == table.groupby("run_id").step.transform("max")
    table = table.rename(columns={"tokens": "D"})
    return table.sort_values(["N", "share", "seed", "domain", "D"], ignore_index=True)


def _shares(mixture: str) -> dict[str, float]:
    (_, shares), = json.loads(mixture)
    return dict(shares)


def changes(table: pd.DataFrame, general: str, target: str) -> pd.DataFrame:
    """Changes of both losses side by side, one row a branch with R > 0 and logged step, as `critical_curve` reads them:
    N, seed, R, T, general_change, domain_change.
    """
    wide = table[table.share > 0].pivot_table(index=["N", "seed", "share", "D"], columns="domain", values="change")
    return wide.reset_index().rename(columns={"share": "R", "D": "T", general: "general_change",
                                              target: "domain_change"})


def crossing(last: pd.DataFrame, tolerance: float) -> float:
    """The share at which straight lines between measured changes first exceed the tolerance; nan if they never do."""
    share_K, change_K = last.sort_values("share")[["share", "change"]].to_numpy().T
    above = np.flatnonzero(change_K > tolerance)
    if not len(above):
        return math.nan
    k = above[0]
    if k == 0:
        return 0.0
    part = (tolerance - change_K[k - 1]) / (change_K[k] - change_K[k - 1])
    return float(share_K[k - 1] + part * (share_K[k] - share_K[k - 1]))


def sharing(store: Store) -> pd.DataFrame:
    """What a sweep of branches cost with its trunks shared, and with each branch trained from scratch.

    One row a size: `width`, `trunks`, `branches`, then for `what` in flops and seconds (of wall clock, a pack's evenly
    among its runs) `shared_<what>` = trunks + branches and `scratch_<what>` = branches + the trunk's steps up to where
    it left, once a branch. Only runs that ended as `done` are counted.
    """
    runs = store.read("runs")
    runs = runs[runs.status == "done"].set_index("run_id")
    children = runs[runs.parent_id.isin(runs.index)]
    parents = runs.loc[children.parent_id.unique()]
    part = (children.parent_step / parents.steps.loc[children.parent_id].to_numpy()).astype(float)
    rows: list[dict[str, float]] = []
    for width in np.sort(children["model.width"].unique()):
        group, trunks = children[children["model.width"] == width], parents[parents["model.width"] == width]
        row: dict[str, float] = {"width": int(width), "trunks": len(trunks), "branches": len(group)}
        for what, column in (("flops", "flops"), ("seconds", "wall_seconds")):
            own = float(group[column].sum())
            before = trunks[column].loc[group.parent_id].to_numpy() * part[group.index].to_numpy()
            row[f"shared_{what}"], row[f"scratch_{what}"] = own + float(trunks[column].sum()), own + float(before.sum())
        rows.append(row)
    return pd.DataFrame(rows)
