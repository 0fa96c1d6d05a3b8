"""The coordinate check: change of activations against width, one panel a parametrization.

Table: rows with columns parametrization, width, seed, step, activation, change. Slopes: rows with columns
parametrization, activation, slope, low, high.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from scaling.figures.style import panels, ramp


def coordinates(table: pd.DataFrame, slopes: pd.DataFrame) -> Figure:
    """Mean |change| after the last step, mean and range over seeds, one line an activation; slopes in the legends."""
    last = table[table.step == table.step.max()]
    names, kinds = list(dict.fromkeys(last.activation)), list(dict.fromkeys(last.parametrization))
    widths = sorted(last.width.unique())
    figure, axes = panels(len(kinds), width=5.6, height=4.6)
    for axis, kind in zip(axes, kinds, strict=True):
        found = slopes[slopes.parametrization == kind].set_index("activation")
        for name, colour in zip(names, ramp(np.arange(len(names))), strict=True):
            of_width = last[(last.parametrization == kind) & (last.activation == name)].groupby("width").change
            slope, low, high = found.loc[name, ["slope", "low", "high"]]
            axis.plot(widths, of_width.mean(), color=colour, marker="o", markersize=3, linewidth=1.2,
                      label=f"{name}: {slope:+.2f} [{low:+.2f}, {high:+.2f}]")
            axis.fill_between(widths, of_width.min(), of_width.max(), color=colour, alpha=0.15, linewidth=0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("width", fontsize=8)
        axis.set_title(kind, fontsize=9)
        axis.legend(title="slope", fontsize=6, title_fontsize=7, frameon=False, loc="upper center",
                    bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes[0].set_ylabel(f"mean |change| after {last.step.max()} steps", fontsize=8)
    return figure
