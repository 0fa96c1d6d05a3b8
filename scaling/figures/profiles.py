"""Profile curves: how the objective rises as a parameter, or another quantity, is held away from its estimate."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log, titled
from scaling.figures.style import ACCENT, GREY, INK, SECOND
from scaling.fitting import Fit
from scaling.fitting.profile import Profile


def profiles(fit: Fit, curves: Sequence[Profile]) -> Figure:
    """One panel a profile: the objective less its minimum, the threshold, the interval between the crossings.

    An open end of an interval is shaded to the edge and named. ValueError without a profile.
    """
    if not curves:
        raise ValueError("curves: no profile to draw; compute at least one with fitting.profile")
    figure, axes = grid(len(curves))
    for axis, curve in zip(axes, curves, strict=True):
        _draw(axis, curve)
    for axis in axes[::3]:
        axis.set_ylabel("objective less its minimum", fontsize=8)
    levels = sorted({f"{curve.level:.0%}" for curve in curves})
    return titled(figure, fit, str(fit.objective), f"shaded: {', '.join(levels)} profile interval")


def _draw(axis: Axes, curve: Profile) -> None:
    rise_K = curve.values_K - curve.value
    threshold = curve.threshold - curve.value
    axis.plot(curve.grid_K, rise_K, color=SECOND, linewidth=1.4, marker=".", markersize=3)
    axis.axvline(curve.estimate, color=INK, linewidth=0.8)
    if not math.isnan(threshold):
        axis.axhline(threshold, color=GREY, linestyle="--", linewidth=1)
        ends = np.nan_to_num([curve.low, curve.high], neginf=curve.grid_K[0], posinf=curve.grid_K[-1])
        axis.axvspan(*ends, color=ACCENT, alpha=0.12, linewidth=0)
        axis.set_ylim(-0.05 * threshold, 2.5 * threshold)
    if curve.grid_K[0] > 0 and curve.grid_K[-1] > 5 * curve.grid_K[0]:
        set_log(axis, "x")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    axis.yaxis.get_offset_text().set_fontsize(7)
    axis.set_title(f"{curve.estimate:.4g}, {_span(curve)}", fontsize=8)
    axis.set_xlabel(curve.quantity, fontsize=8)


def _span(curve: Profile) -> str:
    if math.isnan(curve.low):
        return "no interval"
    below, above = curve.open_ends
    low = "open below" if below else f"{curve.low:.4g}"
    high = "open above" if above else f"{curve.high:.4g}"
    return f"[{low}, {high}]"
