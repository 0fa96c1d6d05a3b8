"""IsoFLOP curves: loss against size at equal compute, their minima, and the power law of the best size in compute.

Letters: K budgets, G grid points.
"""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log, written
from scaling.figures.style import ACCENT, GREY, INK, SECOND
from scaling.fitting.isoflop import Frontier

_MOST_NAMED = 10


def isoflops(
    table: pd.DataFrame,
    frontier: Frontier,
    *,
    size: str = "N",
    compute: str = "C",
    target: str = "loss",
    within: float = 0.05,
) -> Figure:
    """Parabolas of a frontier through their runs (left), and N* against C with the power law's band (right).

    `table`, its columns and `within` are those that `isoflop_frontier` was given. A parabola that was refused is
    dashed and has no minimum. A frontier of training curves (`curve_frontier`) has no parabolas, and the right panel
    only. ValueError where no budget is left.
    """
    used = frontier.budgets[frontier.budgets["refused"] == ""]
    if used.empty:
        raise ValueError(f"frontier: no budget is left to draw; {frontier}")
    parabolas = "c0" in frontier.budgets
    figure, axes = grid(2 if parabolas else 1, width=4.6, height=4.2)
    drawn = (
        _draw_parabolas(axes[0], table, frontier.budgets, size, compute, target, within) if parabolas else len(table)
    )
    _draw_power_law(axes[-1], frontier, used)
    low, high = frontier.exponent.low, frontier.exponent.high
    what = f"N* ~ C^{frontier.exponent.value:.3f}, {frontier.exponent.level:.0%} interval [{low:.3f}, {high:.3f}]"
    if frontier.exponent.refusal:
        what = str(frontier.exponent.refusal)
    count = f"n = {drawn} rows, {len(used)} of {len(frontier.budgets)} budgets used, {frontier.unused} rows unused"
    return written(figure, what, count)


def _draw_parabolas(
    axis: Axes, table: pd.DataFrame, budgets: pd.DataFrame, size: str, compute: str, target: str, within: float
) -> int:
    """Returns the number of rows drawn."""
    log_c_K = np.log(budgets["C"].to_numpy())
    off_MxK = np.abs(np.log(table[compute].to_numpy())[:, None] - log_c_K)
    at_M = np.where(off_MxK.min(axis=1) <= np.log1p(within), off_MxK.argmin(axis=1), -1)
    inks = colormaps["viridis"](np.linspace(0.0, 0.88, len(budgets)))
    named = np.linspace(0, len(budgets) - 1, min(len(budgets), _MOST_NAMED)).round()
    for k, (row, ink) in enumerate(zip(budgets.to_dict("records"), inks, strict=True)):
        runs = table[at_M == k]
        axis.plot(
            runs[size],
            runs[target],
            "o",
            color=ink,
            markersize=3.5,
            alpha=0.8,
            label=f"{row['C']:.2g}" if k in named else None,
        )
        if runs.empty or row["refused"].startswith("few_distinct"):
            continue
        log_n_G = np.linspace(np.log(runs[size].min()), np.log(runs[size].max()), 60)
        loss_G = np.exp(row["c0"] + row["c1"] * log_n_G + row["c2"] * log_n_G**2)
        axis.plot(np.exp(log_n_G), loss_G, "--" if row["refused"] else "-", color=ink, linewidth=1.1)
        if not row["refused"]:
            axis.plot([row["N_low"], row["N_high"]], [row["loss"]] * 2, color=ACCENT, linewidth=1.2)
            axis.plot(row["N"], row["loss"], "D", color=ACCENT, markersize=4, zorder=4)
    set_log(axis, "x")
    set_log(axis, "y")
    axis.set_xlabel(f"{size}, parameters", fontsize=8)
    axis.set_ylabel(target, fontsize=8)
    axis.legend(fontsize=7, frameon=False, title="training FLOPs", title_fontsize=7)
    return int((at_M >= 0).sum())


def _draw_power_law(axis: Axes, frontier: Frontier, used: pd.DataFrame) -> None:
    error = [np.maximum(used["N"] - used["N_low"], 0), np.maximum(used["N_high"] - used["N"], 0)]
    axis.errorbar(
        used["C"],
        used["N"],
        error,
        fmt="o",
        color=INK,
        markersize=4,
        linewidth=0.9,
        capsize=2,
        label="best size of a budget",
    )
    if frontier.exponent.refusal is None:
        compute_G = np.geomspace(used["C"].min(), used["C"].max() * 10, 60)
        sizes = [frontier.size(float(c)) for c in compute_G]
        axis.plot(compute_G, [s.value for s in sizes], color=SECOND, linewidth=1.4, label="power law")
        axis.fill_between(
            compute_G,
            [s.low for s in sizes],
            [s.high for s in sizes],
            color=SECOND,
            alpha=0.2,
            linewidth=0,
            label=f"{frontier.exponent.level:.0%} interval",
        )
        axis.axvline(used["C"].max(), color=GREY, linewidth=0.8, linestyle=":")
    set_log(axis, "x")
    set_log(axis, "y")
    axis.set_xlabel("training FLOPs", fontsize=8)
    axis.set_ylabel("compute-optimal parameters N*", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
