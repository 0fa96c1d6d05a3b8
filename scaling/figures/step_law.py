"""Figures of sweeps of learning rate and batch: the loss over both by setting, and laws of the best of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, INK, SECOND, panels, ramp
from scaling.fitting import Fit

_MOST = 2.0  # percent of excess loss: what lies above has the last colour
MARKS = ("o", "s", "^")


def excess_maps(cells: pd.DataFrame, points: pd.DataFrame) -> Figure:
    """A panel a setting: excess of every cell's loss over the setting's least, in percent, over rate and batch.

    `cells`: setting, lr, batch, loss (inf where a run diverged: a cross). `points`: setting, name, lr, batch, marked.
    """
    settings = list(dict.fromkeys(cells.setting))
    figure, axes = grid(len(settings), columns=3, width=2.9, height=2.1)
    names = list(dict.fromkeys(points.name))
    shown = None
    for axis, setting in zip(axes, settings, strict=True):
        rows = cells[cells.setting == setting]
        excess = 100 * (rows.loss / rows.loss.min() - 1)
        known = np.isfinite(excess)
        shown = axis.scatter(rows.lr[known], rows.batch[known], c=excess[known], vmin=0, vmax=_MOST, cmap="viridis_r",
                             marker="s", s=190, linewidths=0)
        axis.plot(rows.lr[~known], rows.batch[~known], "x", color=INK, markersize=5)
        for name, mark, colour in zip(names, MARKS, (ACCENT, SECOND, INK), strict=False):
            own = points[(points.setting == setting) & (points.name == name)]
            axis.plot(own.lr, own.batch, mark, color="none", markeredgecolor=colour, markeredgewidth=1.6, markersize=7,
                      label=name)
        axis.set_title(setting, fontsize=7)
        axis.margins(0.15)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.minorticks_off()
        for ticks, column in ((axis.set_xticks, "lr"), (axis.set_yticks, "batch")):
            values = np.sort(rows[column].unique())
            ticks(values, [f"{value:.3g}" for value in values], fontsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), fontsize=8,
                  frameon=False)
    figure.supxlabel("peak learning rate", fontsize=8)
    figure.supylabel("batch, tokens", fontsize=8)
    figure.colorbar(shown, ax=axes, label="excess loss, %", extend="max", fraction=0.03)  # type: ignore[arg-type]
    return figure


def best_rates(chosen: pd.DataFrame, rate: Fit, batch: Fit) -> Figure:
    """Rates against N and batches against D of the runs near each setting's best, with the laws through them.

    `chosen`: N, D, lr, batch; `rate` a law of (N, D), `batch` one of D. Marks are moved aside where they coincide.
    """
    figure, (left, right) = panels(2, width=4.2, height=3.3, share_y=False)
    tokens = np.sort(chosen.D.unique())
    span_N = np.geomspace(chosen.N.min(), chosen.N.max(), 50)
    for place, (each, colour) in enumerate(zip(tokens, ramp(tokens), strict=True)):
        rows = chosen[each == chosen.D]
        aside = 1 + 0.04 * (place - (len(tokens) - 1) / 2)
        left.plot(rows.N * aside, rows.lr, ".", color=colour, markersize=6)
        left.plot(span_N, rate.predict({"N": span_N, "D": np.full(50, each)}), color=colour, linewidth=1.3,
                  label=f"{each:,.0f} tokens")
    sizes = np.sort(chosen.N.unique())
    for place, (each, colour) in enumerate(zip(sizes, ramp(sizes), strict=True)):
        rows = chosen[each == chosen.N]
        right.plot(rows.D * (1 + 0.04 * (place - (len(sizes) - 1) / 2)), rows.batch, ".", color=colour, markersize=6,
                   label=f"{each:,.0f} parameters")
    span_D = np.geomspace(tokens[0], tokens[-1], 50)
    right.plot(span_D, batch.predict({"D": span_D}), color=SECOND, linewidth=1.3, label="law")
    _finish(left, "parameters without embeddings", "peak learning rate")
    _finish(right, "training tokens", "batch, tokens")
    return figure


def _finish(axis: Axes, x: str, y: str) -> None:
    set_log(axis, "x")
    set_log(axis, "y")
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.legend(fontsize=7, frameon=False)
