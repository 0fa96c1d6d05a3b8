"""Simulated D-CPT curves with known truth."""

import numpy as np
import pandas as pd

from scaling import fitting
from scaling.fitting import Errors, Fit, Points

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


def points_of(inputs, target, weights=None, groups=None):
    """Points of plain arrays: a group a row, nothing held out, no known errors."""
    rows = len(target)
    group_M = np.arange(rows) if groups is None else np.asarray(groups)
    inputs = {name: np.asarray(x, dtype=np.float64) for name, x in inputs.items()}
    weight_M = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    no_M = np.zeros(rows, dtype=np.int64)
    return Points(inputs, np.asarray(target), weight_M, np.full(rows, np.nan), group_M, no_M, no_M.astype(bool))


def known(law, *draws, ranges=None):
    """A fit whose estimate is the first vector and whose bootstrap draws are the others."""
    size = len(law.parameters)
    inputs = {name: np.resize(span, 10) for name, span in (ranges or {"T": (1.0, 100.0)}).items()}
    return Fit(
        law=law,
        objective=fitting.least_squares(),
        parameters=dict(zip(law.parameter_names, map(float, draws[0]), strict=True)),
        covariance_PxP=np.zeros((size, size)),
        draws_BxP=np.array(draws[1:], dtype=np.float64).reshape(-1, size),
        value=0.0,
        agreement=1.0,
        points=points_of(inputs, np.ones(10)),
        errors=Errors(10, 0.0, 0.0),
        held_out=None,
        refusals=(),
    )
