"""Figures of learning-rate schedules: their rates, predicted curves, last loss by peak rate, theory against measured.

Letters: T steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp


def rates(panels_: Mapping[str, Mapping[str, np.ndarray]], marked: Sequence[str]) -> Figure:
    """Learning rate of every step, [T], a panel a title, a line a schedule; those `marked` stand out."""
    figure, axes = panels(len(panels_), width=4.2, share_y=False)
    for axis, (title, tables) in zip(axes, panels_.items(), strict=True):
        plain = [name for name in tables if name not in marked]
        colours: dict[str, Any] = dict(zip(plain, ramp(np.arange(len(plain))), strict=True))
        colours |= dict(zip(marked, (ACCENT, SECOND), strict=False))
        for name, lr_T in tables.items():
            width = 1.9 if name in marked else 0.9
            axis.plot(np.arange(1, len(lr_T) + 1), lr_T, color=colours[name], linewidth=width, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("learning rate", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def predicted(held_out: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Curves of schedules not seen by a fit, a panel each: measured points, and a line a column of predictions.

    Rows of one seed, or means: schedule, updates, loss, `columns`. Framed on the measured points.
    """
    names = list(dict.fromkeys(held_out.schedule))
    figure, axes = grid(len(names), width=3.6, height=2.9)
    styles = [(ACCENT, "-"), (SECOND, "-"), (GREY, "--"), (GREY, ":")]
    for axis, name in zip(axes, names, strict=True):
        rows = held_out[held_out.schedule == name].sort_values("updates")
        axis.plot(rows.updates, rows.loss, "o", color=INK, markersize=2.5, label="measured")
        for column, (colour, style) in zip(columns, styles, strict=False):
            axis.plot(rows.updates, rows[column], color=colour, linestyle=style, linewidth=1.2, label=column)
        span = np.ptp(rows.loss)
        axis.set_ylim(rows.loss.min() - 0.15 * span, rows.loss.max() + 0.1 * span)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    axes[0].set_ylabel("loss, nats/token", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def by_peak(rows: pd.DataFrame, optima: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Last loss against the peak rate, a panel a schedule: runs, their mean, and the optimum with its interval.

    Rows: schedule, peak, loss. `optima`: value, low, high by schedule; those without are drawn without. All panels
    share a frame that leaves out what ends far above the best.
    """
    names = list(dict.fromkeys(rows.schedule))
    figure, axes = grid(len(names), width=3.3, height=2.7)
    least = rows.groupby(["schedule", "peak"]).loss.mean()
    top = least.groupby("schedule").min().max() + 0.6 * (least.max() - least.min())
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows.schedule == name]
        axis.plot(part.peak, part.loss, ".", color=GREY, markersize=4, label="a run")
        axis.plot(least[name].index, least[name], "o-", color=INK, markersize=3.5, linewidth=1.2, label="mean")
        if name in optima:
            value, low, high = optima[name]
            axis.axvline(value, color=ACCENT, linewidth=1.2, label="optimum, interval over seeds")
            if np.isfinite([low, high]).all():
                axis.axvspan(low, high, color=ACCENT, alpha=0.15, linewidth=0)
        axis.set_xlim(rows.peak.min() / 1.2, rows.peak.max() * 1.2)
        axis.set_ylim(rows.loss.min() - 0.05 * (top - rows.loss.min()), top)
        axis.set_title(name, fontsize=9)
        _labels(axis, "peak learning rate", "last loss, nats/token")
        set_log(axis, "x")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def against(tables: Mapping[str, pd.DataFrame], x: str, y: str, scale: str) -> Figure:
    """Measured values with intervals against those of a theory, a panel a title, a named point a row.

    Tables: name, theory, value, low, high. `scale`: linear or log, of both axes.
    """
    figure, axes = panels(len(tables), width=4.4, height=3.6, share_y=False)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        for place, row in enumerate(table.sort_values("theory").to_dict("records")):
            error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            axis.errorbar([row["theory"]], [row["value"]], yerr=error, fmt="o", color=SECOND, markersize=4, capsize=2)
            axis.annotate(row["name"], (row["theory"], row["value"]), xytext=(5, (4, -10)[place % 2]),
                          textcoords="offset points", fontsize=7)
        axis.margins(x=0.2)
        axis.set_title(title, fontsize=9)
        _labels(axis, x, y)
        if scale == "log":
            set_log(axis, "x")
            set_log(axis, "y")
    return figure


def horizons(optima: pd.DataFrame, exponent: float) -> Figure:
    """Best peak rate against the length of a run, a panel a schedule: a value a seed, their geometric mean, and the
    power law of the given exponent through its middle. Rows: schedule, seed, steps, rate.
    """
    names = list(dict.fromkeys(optima.schedule))
    figure, axes = panels(len(names), width=3.6)
    for axis, name in zip(axes, names, strict=True):
        rows = optima[optima.schedule == name]
        axis.plot(rows.steps, rows.rate, ".", color=GREY, markersize=5, label="jackknife, a seed left out")
        mean = np.exp(np.log(rows.rate).groupby(rows.steps).mean())
        axis.plot(mean.index, mean, "o-", color=INK, markersize=4, label="geometric mean")
        centre = np.exp(np.log(mean).mean()), np.exp(np.log(mean.index.to_numpy()).mean())
        line = centre[0] * (mean.index.to_numpy() / centre[1]) ** exponent
        axis.plot(mean.index, line, "--", color=ACCENT, linewidth=1.2, label=f"steps^{exponent:g}")
        axis.set_title(name, fontsize=9)
        _labels(axis, "steps of the run", "best peak learning rate")
        set_log(axis, "x")
        set_log(axis, "y")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def _labels(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
