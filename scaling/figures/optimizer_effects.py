"""Figures of what an optimizer does: final loss by rate, against a measured quantity, quantities over steps, shares.

Rows have a column `method`; methods keep the order in which they come, and their colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, INK, panels, ramp

_MARKS = "osD^vPX*"


def loss_by_rate(parts: Mapping[str, pd.DataFrame]) -> Figure:
    """Final loss against the peak rate, mean and range over seeds, a panel a part; a cross where any run failed.

    Rows: method, peak, seed, loss in nats/token, failed.
    """
    figure, axes = panels(len(parts), width=4.6, height=3.4)
    together = pd.concat([rows.assign(part=title) for title, rows in parts.items()], ignore_index=True)
    for axis, title in zip(axes, parts, strict=True):
        for name, part, colour, mark in _methods(together, together.part == title):
            by_peak = part.groupby("peak")
            mean = by_peak.loss.mean()
            axis.plot(mean.index, mean, color=colour, marker=mark, markersize=4, linewidth=1.3, label=name)
            axis.fill_between(mean.index, by_peak.loss.min(), by_peak.loss.max(), color=colour, alpha=0.15, linewidth=0)
            lost = mean[by_peak.failed.any()]
            axis.plot(lost.index, lost, "x", color=ACCENT, markersize=8)
        if len(parts) > 1:
            axis.set_title(title, fontsize=8)
        _label(axis, "peak learning rate", "final held-out loss, nats/token")
        set_log(axis, "x")
    _legend(figure)
    return figure


def loss_against(rows: pd.DataFrame, quantity: str, label: str, log: bool) -> Figure:
    """Final loss of every run against one of its columns, `log`: on a logarithmic axis."""
    figure, (axis,) = panels(1, width=5.2, height=3.6)
    for name, part, colour, mark in _methods(rows):
        axis.plot(part[quantity], part.loss, mark, color=colour, markersize=4, alpha=0.8, label=name)
    _label(axis, label, "final held-out loss, nats/token")
    if log:
        set_log(axis, "x")
    _legend(figure)
    return figure


def over_steps(rows: pd.DataFrame, label: str, log: bool) -> Figure:
    """A quantity over steps, mean and range over runs, a panel a `panel`, a line a method.

    Rows: panel, method, step, value.
    """
    titles = list(dict.fromkeys(rows.panel))
    figure, axes = grid(len(titles), columns=3, width=3.6, height=2.8)
    for axis, title in zip(axes, titles, strict=True):
        for name, part, colour, mark in _methods(rows, rows.panel == title):
            steps = part.groupby("step").value
            axis.plot(steps.mean().index, steps.mean(), color=colour, marker=mark, markersize=3, linewidth=1.3,
                      label=name)
            axis.fill_between(steps.mean().index, steps.min(), steps.max(), color=colour, alpha=0.15, linewidth=0)
        axis.set_title(title, fontsize=8)
        _label(axis, "step", label)
        if log:
            set_log(axis, "y")
    _legend(figure)
    return figure


def shares(rows: pd.DataFrame, label: str) -> Figure:
    """Shares with their intervals, a line a name. Rows: name, value, low, high, n."""
    figure, (axis,) = panels(1, width=5.6, height=0.34 * len(rows) + 1.0)
    place = np.arange(len(rows), 0, -1)
    axis.errorbar(rows.value, place, xerr=[rows.value - rows.low, rows.high - rows.value], fmt="o", color=INK,
                  markersize=4, capsize=2)
    axis.set_yticks(place, [f"{name} (n = {n})" for name, n in zip(rows.name, rows.n, strict=True)])
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(label, fontsize=8)
    return figure


def _methods(rows: pd.DataFrame, chosen: pd.Series | None = None) -> Iterator[tuple[str, pd.DataFrame, tuple, str]]:
    """Name, chosen rows, colour and mark of each method that has any."""
    names = list(dict.fromkeys(rows.method))
    for i, (name, colour) in enumerate(zip(names, ramp(np.arange(len(names))), strict=True)):
        part = rows[(rows.method == name) & (True if chosen is None else chosen)]
        if len(part):
            yield name, part, colour, _MARKS[i % len(_MARKS)]


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)


def _legend(figure: Figure) -> None:
    """Every label once, of whichever panel has it first."""
    first: dict[str, Artist] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            first.setdefault(label, handle)
    figure.legend(list(first.values()), list(first), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
