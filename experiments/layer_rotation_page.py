"""The report of the study `layer_rotation`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.effect_pages import effect_page, record, summary
from experiments.layer_rotation import rotations
from experiments.optimizer_effects import Findings, best_rate
from experiments.page import Page
from scaling.figures.optimizer_effects import loss_against, loss_by_rate, over_steps
from scaling.store import Store

__all__ = ["page", "record", "summary"]


def curves(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """Layer rotation curves, mean over kernels: a panel a method, a line a rate by its place in the method's range."""
    mean = rotations(store).groupby(["run_id", "step"], as_index=False).value.mean()
    rows = mean.dropna().merge(table[["run_id", "method", "peak"]], on="run_id").sort_values(["method", "peak", "step"])
    parts = []
    for name, part in rows.groupby("method"):
        rates = np.sort(table.peak[table.method == name].unique())
        place = np.searchsorted(rates, part.peak) + 1
        best = np.searchsorted(rates, best_rate(table, name)) + 1
        parts.append(part.assign(panel=f"{name}, {rates[0]:.2g} to {rates[-1]:.2g}, best: rate {best}",
                                 method=[f"rate {i}" for i in place]))
    return pd.concat(parts, ignore_index=True)


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    label = "final rotation 1 - cos, mean over kernels"
    figures = {
        "loss_by_rate": (loss_by_rate({"": found.table}), "Final loss by peak rate, mean and range over seeds."),
        "loss_against_rotation": (loss_against(found.table.dropna(subset="rotation"), "rotation", label, log=False),
                                  "Every run: final loss against how far its kernels have turned."),
        "rotation_curves": (over_steps(curves(store, found.table), "rotation 1 - cos, mean over kernels", log=False),
                            "Layer rotation curves, mean and range over seeds; rate 1 is a method's lowest."),
    }
    method = [
        "Kernels alone are trained, the head's too; embeddings, positions and norms stay as they started, in every "
        "method. Pre-norm transformers; the rate falls linearly to 0; no warm-up, no clipping, no decay.",
        "Layca's rate is the tangent of the angle that every kernel turns in a step; momentum 0.9 in SGD and Layca.",
    ]
    return effect_page(store, found, "Is training best where layers have turned away from their start?", figures,
                       method)
