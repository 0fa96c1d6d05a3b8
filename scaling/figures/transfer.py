"""Figures of how learning rates go with width: sweeps by width, their optima, top singular values."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, INK, SECOND, panels, ramp

_MARKERS = "osD^v<>P"


def rate_curves(losses: pd.DataFrame, best: pd.DataFrame) -> Figure:
    """A panel an arm: loss against the peak rate, a line a width, mean and range over seeds, the optimum as a stroke.

    `losses`: arm, width, seed, lr, loss; `best`: arm, width, lr. Framed at the median loss: what is worse than half of
    all runs leaves the frame upwards.
    """
    arms, widths = list(dict.fromkeys(losses.arm)), sorted(losses.width.unique())
    figure, axes = grid(len(arms), width=3.2, height=2.8)
    least, near = losses.loss.min(), losses.loss.median()
    places = best.set_index(["arm", "width"]).lr
    for axis, arm in zip(axes, arms, strict=True):
        for width, colour in zip(widths, ramp(np.arange(len(widths))), strict=True):
            by_rate = losses[(losses.arm == arm) & (losses.width == width)].groupby("lr").loss
            mean = by_rate.mean()
            axis.plot(mean.index, mean, "o-", color=colour, markersize=3, linewidth=1.2, label=f"width {width}")
            axis.fill_between(mean.index, by_rate.min(), by_rate.max(), color=colour, alpha=0.2, linewidth=0)
            axis.axvline(places[arm, width], ymax=0.08, color=colour, linewidth=2)
        axis.set_ylim(least - 0.1 * (near - least), near + 0.3 * (near - least))
        _ticks(axis, sorted(losses.lr.unique())[::2])
        axis.set_title(arm, fontsize=9)
        axis.set_xlabel("peak learning rate", fontsize=8)
        axis.set_ylabel("final held-out loss, nats/token", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def optima_by_width(best: pd.DataFrame) -> Figure:
    """Optimal rate against width, a line an arm, with intervals. `best`: arm, width, lr, low, high."""
    figure, (axis,) = panels(1, width=5.6, height=3.6)
    arms = list(dict.fromkeys(best.arm))
    colours = [INK, ACCENT, *ramp(np.arange(max(len(arms) - 2, 0)))]
    for place, (arm, colour, marker) in enumerate(zip(arms, colours, _MARKERS, strict=False)):
        rows = best[best.arm == arm].sort_values("width")
        x = rows.width.to_numpy() * 1.03 ** (place - (len(arms) - 1) / 2)
        axis.errorbar(x, rows.lr, yerr=[rows.lr - rows.low, rows.high - rows.lr], color=colour, marker=marker,
                      markersize=4, linewidth=1.2, capsize=2, label=arm)
    set_log(axis, "y")
    _ticks(axis, sorted(best.width.unique()))
    axis.set_xlabel("width", fontsize=8)
    axis.set_ylabel("optimal peak rate", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure


def spectra_by_width(spectra: pd.DataFrame) -> Figure:
    """A panel an arm: top singular value against width, a thin line a matrix (mean over seeds), their geometric mean
    bold. `spectra`: arm, width, seed, matrix, value.
    """
    arms, widths = list(dict.fromkeys(spectra.arm)), sorted(spectra.width.unique())
    figure, axes = panels(len(arms), width=3.1, height=3.2)
    matrices = list(dict.fromkeys(spectra.matrix))
    for axis, arm in zip(axes, arms, strict=True):
        rows = spectra[spectra.arm == arm]
        for matrix, colour in zip(matrices, ramp(np.arange(len(matrices))), strict=True):
            value = rows[rows.matrix == matrix].groupby("width").value.mean()
            axis.plot(value.index, value, "-", color=colour, linewidth=0.8, label=matrix)
        mean = np.exp(np.log(rows.value).groupby(rows.width).mean())
        slope = np.polyfit(np.log(mean.index), np.log(mean), 1)[0]
        axis.plot(mean.index, mean, "o-", color=SECOND, linewidth=2, markersize=4)
        axis.set_title(f"{arm}: slope {slope:+.2f}", fontsize=9)
        axis.set_yscale("log")
        _ticks(axis, widths)
        axis.set_xlabel("width", fontsize=8)
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.tick_params(which="minor", labelsize=7)
    axes[0].set_ylabel("largest singular value", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=6, frameon=False, ncols=4)
    return figure


def _ticks(axis: Axes, values: list[float]) -> None:
    """A logarithmic x axis with ticks at these values alone."""
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:.3g}" for value in values])
    axis.xaxis.set_minor_locator(NullLocator())
