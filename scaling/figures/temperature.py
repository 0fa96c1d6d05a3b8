"""Figures of domains sampled or weighed by temperature: differences under full gradients and in batches, ratios of
variances, curves by way, and what one domain's loss costs another's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp


def gap_curves(gaps: pd.DataFrame, tolerance: float) -> Figure:
    """Largest |gap| over seeds and domains against step, logarithmic: full gradients and stochastic batches.

    Columns: whole (a batch is all windows), tau, seed, step, domain, gap (nats/token).
    """
    figure, (axis,) = panels(1, width=6.0, height=3.4)
    rows = gaps[gaps.step > 0].assign(size=lambda rows: rows.gap.abs())
    for (whole, tau), part in rows.groupby(["whole", "tau"]):
        line, first = part.groupby("step")["size"].max(), tau == gaps.tau.min()
        label = f"{'all windows at once' if whole else 'batches'}, τ = {tau:g}"
        axis.plot(line.where(line > 0), color=SECOND if whole else ACCENT, marker="o" if first else "s", markersize=4,
                  linestyle="-" if first else "--", linewidth=1.2, label=label)
    axis.axhline(tolerance, color=GREY, linewidth=1, label=f"{tolerance:g}")
    axis.set_xlabel("steps of plain descent", fontsize=8)
    axis.set_ylabel("largest difference of a held-out\nloss between the ways, nats/token", fontsize=8)
    set_log(axis, "y")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


def variance_ratios(rows: pd.DataFrame) -> Figure:
    """Ratio of variances with its interval against the second moment of the weights, and the line where they agree.

    Columns: state, batch (windows), tau, factor, ratio, low, high. A panel a batch, a colour a state.
    """
    batches = np.sort(rows.batch.unique())
    figure, axes = panels(len(batches), width=3.8, height=3.6)
    ends = np.array([0.8 * rows.factor.min(), 1.25 * rows.factor.max()])
    for axis, batch in zip(axes, batches, strict=True):
        shown = rows[rows.batch == batch]
        axis.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
        for (state, part), colour in zip(shown.groupby("state"), (SECOND, ACCENT), strict=False):
            error = [part.ratio - part.low, part.high - part.ratio]
            axis.errorbar(part.factor, part.ratio, error, fmt="o", color=colour, markersize=4, capsize=3, label=state)
        for factor, part in shown.groupby("factor"):
            axis.annotate(f"τ = {part.tau.iloc[0]:g}", (float(factor), part.high.max()), fontsize=7, color=INK,
                          ha="center", xytext=(0, 6), textcoords="offset points")
        axis.set_title("single windows" if batch == 1 else f"batches of {batch} windows", fontsize=9)
        axis.set_xlabel("Σ w²/p", fontsize=8)
    axes[0].set_ylim(0.7 * min(rows.low.min(), ends[0]), 1.6 * rows.high.max())
    axes[0].set_ylabel("variance of the gradient,\nscalarization over sampling", fontsize=8)
    for axis in axes:
        for which, side in (("x", axis.xaxis), ("y", axis.yaxis)):
            set_log(axis, which)
            side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def curves_by_way(lines: Mapping[str, Mapping[str, pd.DataFrame]], label: str) -> Figure:
    """Loss against step, mean and range over seeds: a panel a way, a line a label; rows have seed, step, loss."""
    figure, axes = panels(len(lines), width=3.4, height=3.6)
    for axis, (way, named) in zip(axes, lines.items(), strict=True):
        for (name, rows), colour in zip(named.items(), ramp(np.arange(len(named))), strict=True):
            steps = rows[rows.step > 0].groupby("step").loss
            axis.plot(steps.mean(), color=colour, linewidth=1.4, label=name)
            axis.fill_between(steps.mean().index, steps.min(), steps.max(), color=colour, alpha=0.15, linewidth=0)
        axis.set_title(way, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel(label, fontsize=8)
    last = pd.concat([rows for named in lines.values() for rows in named.values()])
    late = last[last.step >= 0.1 * last.step.max()].loss
    axes[0].set_ylim(late.min() - 0.05, late.max() + 0.05)
    return figure


def trade(rows: pd.DataFrame, large: str, small: str) -> Figure:
    """Losses at the end of the smallest domain against the largest's: a mark a way with its label, a line a kind.

    Columns: way, label, and a loss by domain. Lower and to the left is better.
    """
    figure, (axis,) = panels(1, width=6.2, height=4.2)
    looks = ((SECOND, 5, 4, "left"), (ACCENT, 5, -9, "left"), (INK, -5, -9, "right"))
    for (way, part), (colour, right, up, side) in zip(rows.groupby("way", sort=False), looks, strict=False):
        axis.plot(part[large], part[small], color=colour, marker="o", markersize=4, linewidth=1, label=way)
        for x, y, label in zip(part[large], part[small], part.label, strict=True):
            axis.annotate(label, (x, y), fontsize=7, color=colour, xytext=(right, up), textcoords="offset points",
                          ha=side)
    axis.set_xlabel(f"{large} loss at the end, nats/token", fontsize=8)
    axis.set_ylabel(f"{small} loss at the end, nats/token", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure
