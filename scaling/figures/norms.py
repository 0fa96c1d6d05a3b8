"""Figures of normalization: estimates against depth, and how far equal functions drift apart in training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, INK, panels, ramp


def by_depth(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel a table, its name the label of y, a line a name: estimates with intervals against depth, side by side.

    Tables: name, depth, value, low, high; a name has one colour in all panels.
    """
    names = list(dict.fromkeys(name for table in tables.values() for name in table["name"]))
    colours = dict(zip(names, ramp(np.arange(len(names))), strict=True))
    figure, axes = panels(len(tables), width=3.6, height=3.2, share_y=False)
    for axis, (label, table) in zip(axes, tables.items(), strict=True):
        depths = np.sort(table.depth.unique())
        for name, line in table.sort_values("depth").groupby("name", sort=False):
            place = np.searchsorted(depths, line.depth) + 0.06 * (names.index(name) - (len(names) - 1) / 2)
            axis.errorbar(place, line.value, [line.value - line.low, line.high - line.value], color=colours[name],
                          marker="o", markersize=4, linewidth=1.2, capsize=2, label=name)
        if (table.value < 0).any():
            axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xticks(range(len(depths)), [f"{depth}" for depth in depths])
        axis.set_xlabel("depth, layers", fontsize=8)
        axis.set_ylabel(label, fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def drift(differences: pd.DataFrame, bound: float) -> Figure:
    """Largest difference over seeds at every step, a line a split, and the bound (dashed); steps whose losses are all
    equal are not drawn.

    `differences`: seed, split, step, difference.
    """
    figure, (axis,) = panels(1, width=6.0, height=3.2)
    largest = differences.assign(size=differences.difference.abs()).groupby(["split", "step"])["size"].max()
    splits = sorted(differences.split.unique())
    for split, colour in zip(splits, ramp(np.arange(len(splits))), strict=True):
        line = largest[split]
        line = line[line > 0]
        axis.plot(line.index, line.to_numpy(), ".-", color=colour, linewidth=1.2, markersize=4, label=split)
    axis.axhline(bound, color=ACCENT, linewidth=1, linestyle="--", label=f"{bound:g}")
    set_log(axis, "y")
    axis.set_xlabel("step", fontsize=8)
    axis.set_ylabel("largest difference of losses, nats/token", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure
