"""What studies of swept learning rates share: ended runs with what was swept, and their final loss, read back.

A run that diverged is an outcome: its loss is inf until `capped`, which counts it as not having learned at all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fields import check
from scaling.store import Store

ENDED = ("done", "diverged")


def ended(store: Store, domain: str) -> pd.DataFrame:
    """One row a run: run_id, width, N (parameters without embeddings), D (tokens), `batch` (tokens a step), `windows`
    (a step), lr (the peak), seed, `initial` and `loss` (held-out nats/token before and after training; inf where it
    diverged).

    Raises ConfigError where runs are missing, have not ended, or have no such losses.
    """
    runs, curves = store.read("runs"), store.read("curves")
    good = len(runs) > 0 and runs.status.isin(ENDED).all()
    check(bool(good), "store", str(store.root), "runs that have all ended", "run the sweep to its end")
    held_out = curves[(curves.split == "validation") & (curves.domain == domain)].set_index(["run_id", "step"]).loss
    first, last = (held_out.reindex(pd.MultiIndex.from_arrays([runs.run_id, step])).to_numpy()
                   for step in (np.zeros(len(runs), dtype=np.int64), runs.steps))
    diverged = (runs.status == "diverged").to_numpy()
    known = np.isfinite(first) & (np.isfinite(last) | diverged)
    check(bool(known.all()), "domain", domain,
          f"held-out losses at the start and the end of every run, {(~known).sum()} lack them",
          "name the domain that was trained on")
    batch = runs["data.batch"] * runs["data.sequence"]
    return pd.DataFrame({
        "run_id": runs.run_id, "width": runs["model.width"], "N": runs.params_non_embedding.astype(float),
        "D": (runs.steps * batch).astype(float), "batch": batch.astype(float), "windows": runs["data.batch"],
        "lr": runs["schedule.peak"], "seed": runs["training.seed"], "initial": first,
        "loss": np.where(diverged, np.inf, last)})


def capped(table: pd.DataFrame) -> pd.Series:
    """Final losses, but no higher than before training."""
    return table[["loss", "initial"]].min(axis=1)
