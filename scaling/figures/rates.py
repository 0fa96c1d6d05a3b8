"""Figures of finding a learning rate: the range test, and a sweep of peak rates with its quadratic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp
from scaling.fitting.optimum import Optimum
from scaling.fitting.range_test import FIRST_RATES, RangeTest


def range_tests(tests: Mapping[str, RangeTest], highest: tuple[float, float, float]) -> Figure:
    """Loss against the growing rate, each test raw and smoothed, with its lr_max; `highest`: lr_max and its interval.

    Framed from the least loss to a little above the first: what explodes leaves the frame.
    """
    figure, (axis,) = panels(1, width=6.2, height=3.6)
    for (name, test), colour in zip(tests.items(), ramp(np.arange(len(tests))), strict=True):
        axis.plot(test.rate_T, test.loss_T, ".", color=colour, markersize=2, alpha=0.35)
        axis.plot(test.rate_T, test.smoothed_T, color=colour, linewidth=1.4, label=name)
        if test.refusal is None:
            axis.plot([test.highest], test.smoothed_T[test.rate_T == test.highest], "o", color=colour, markersize=5,
                      markeredgecolor="white")
    value, low, high = highest
    if np.isfinite([low, high]).all():
        axis.axvspan(low, high, color=ACCENT, alpha=0.12, linewidth=0)
    axis.axvline(value, color=ACCENT, linewidth=1.2, label="lr_max, interval over seeds")
    cycle = [value / share for share in FIRST_RATES]
    axis.axvspan(*cycle, color=SECOND, alpha=0.12, linewidth=0, label="first rate of a cycle, lr_max/25 to /10")
    least = min(np.nanmin(test.loss_T) for test in tests.values())
    start = max(test.smoothed_T[0] for test in tests.values())
    axis.set_ylim(least - 0.1 * (start - least), start + 0.25 * (start - least))
    _labels(axis, "learning rate, growing every step", "training loss, nats/token")
    return figure


def rate_sweep(found: Optimum) -> Figure:
    """Final loss against the peak rate: the runs, the quadratic where it was fitted, the optimum with its interval.

    Framed at five times the spread of the runs near the least: what trained far worse leaves the frame.
    """
    figure, (axis,) = panels(1, width=6.2, height=3.6)
    rate_M, best = np.exp(found.log_MxI[:, 0]), found.at["lr"]
    axis.plot(rate_M, found.loss_M, "o", color=INK, markersize=4, label="a run")
    grid_K = np.geomspace(rate_M.min(), rate_M.max(), 300)
    z_K = np.log(grid_K / found.centre_I[0])
    constant, slope, curvature = found.coefficients_BxQ[0]
    axis.plot(grid_K, constant + slope * z_K + curvature * z_K**2 / 2, color=SECOND, linewidth=1.4,
              label="quadratic in log rate, weighted to the least")
    axis.set_xlim(rate_M.min() / 1.2, rate_M.max() * 1.2)
    if np.isfinite([best.low, best.high]).all():
        axis.axvspan(best.low, best.high, color=ACCENT, alpha=0.12, linewidth=0)
    axis.axvline(best.value, color=ACCENT if best.refusal is None else GREY, linewidth=1.2,
                 linestyle="-" if best.refusal is None else "--",
                 label=f"optimum, {best.level:.0%} interval" + ("" if best.refusal is None else " (refused)"))
    least, near = found.loss_M.min(), np.quantile(found.loss_M, 0.5)
    top = min(found.loss_M.max(), least + 5 * (near - least))
    axis.set_ylim(least - 0.1 * (top - least), top + 0.1 * (top - least))
    beyond = int((found.loss_M > top).sum())
    lost = [f"{beyond} above the frame"] * (beyond > 0) + [f"{found.dropped} diverged"] * (found.dropped > 0)
    _labels(axis, "peak learning rate" + f" ({', '.join(lost)})" * bool(lost), "final held-out loss, nats/token")
    return figure


def _labels(axis: Axes, x: str, y: str) -> None:
    set_log(axis, "x")
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.legend(fontsize=7, frameon=False)
