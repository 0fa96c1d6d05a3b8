"""Simulated D-CPT curves with known truth."""

import numpy as np
import pandas as pd

TRUTH = {"E": 1.2, "A": 60.0, "B": 400.0, "C": 0.4, "alpha": 0.3, "beta": 0.4, "gamma": 0.5, "eta": 0.3, "eps": 0.1}
SIZES, SHARES = (1e6, 3e6, 1e7), (0.0, 0.1, 0.33, 0.5, 0.67, 0.9, 1.0)


def d_cpt_loss(n, d, r, p=TRUTH):
    """The formula in plain numpy."""
    data = p["B"] * r ** p["eta"] / d ** p["beta"]
    return p["E"] + p["A"] / n ** p["alpha"] + data + p["C"] / (r + p["eps"]) ** p["gamma"]


def d_cpt_table(seed, run_noise=0.002, point_noise=0.002, points=14):
    """42 runs (3 sizes, 7 shares, 2 seeds), each logged at `points` token counts; noise shared by a run and its own."""
    rng = np.random.default_rng(seed)
    tokens = np.geomspace(2e6, 2e8, points)
    rows = [
        (n, d, r, f"{n:g}-{r}-{copy}", noise)
        for n in SIZES
        for r in SHARES
        for copy in (0, 1)
        for noise in [rng.normal(scale=run_noise)]
        for d in tokens
    ]
    table = pd.DataFrame(rows, columns=["N", "D", "r", "run_id", "noise"])
    noise = table.pop("noise") + rng.normal(scale=point_noise, size=len(table))
    return table.assign(loss=d_cpt_loss(table["N"], table["D"], table["r"]) * np.exp(noise))
