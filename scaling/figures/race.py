"""Figures of a comparison of optimizers by time to a target. S submissions, W workloads, T factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp


def profiles(factor_T: np.ndarray, share_SxT: Mapping[str, np.ndarray], score_S: Mapping[str, np.ndarray],
             names: Mapping[str, Sequence[str]]) -> Figure:
    """Share of workloads solved within a multiple of the fastest's time, a panel a unit of time."""
    figure, axes = panels(len(share_SxT), width=4.4, height=3.6)
    for axis, unit in zip(axes, share_SxT, strict=True):
        order = np.argsort(-score_S[unit], kind="stable")
        for rank, (place, colour) in enumerate(zip(order, ramp(order), strict=True)):
            axis.step(factor_T, share_SxT[unit][place] + 0.004 * (len(order) / 2 - rank), where="post", color=colour,
                      linewidth=1.2, linestyle=("-", "--", ":")[rank % 3],
                      label=f"{names[unit][place]} {score_S[unit][place]:.2f}")
        axis.set_title(f"in {unit}", fontsize=9)
        axis.set_xlabel("time as a multiple of the fastest's", fontsize=8)
        axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes[0].set_ylabel("share of base workloads at the target", fontsize=8)
    return figure


def speed_ups(rankings: Mapping[str, pd.DataFrame], reference: str) -> Figure:
    """Speed over a reference (columns submission, speed_up), a panel a unit of time; thick: interval here_low to
    here_high, by which it is coloured; thin: low to high.
    """
    figure, axes = panels(len(rankings), width=3.8, height=3.6, share_y=False)
    for axis, (unit, table) in zip(axes, rankings.items(), strict=True):
        place = np.arange(len(table))[::-1]
        value, low, high, here_low, here_high = (
            table[name].to_numpy() for name in ("speed_up", "low", "high", "here_low", "here_high"))
        colour = np.where((here_low > 1) | (here_high < 1), ACCENT, GREY)
        axis.hlines(place, low, high, color=colour, linewidth=0.7)
        axis.hlines(place, here_low, here_high, color=colour, linewidth=2.4)
        axis.scatter(value, place, color=colour, s=14, zorder=3)
        axis.axvline(1.0, color=INK, linewidth=0.8)
        axis.set_xscale("log")
        ticks = [tick for tick in (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0)
                 if low.min() * 0.98 <= tick <= high.max() * 1.02]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        axis.minorticks_off()
        axis.set_yticks(place, table.submission, fontsize=8)
        axis.set_title(f"in {unit}", fontsize=9)
        axis.set_xlabel(f"times as fast as {reference}", fontsize=8)
    return figure


def probabilities(order: Sequence[str], pairs: pd.DataFrame, column: str, decided: str) -> Figure:
    """Probability that the row is faster than the column; a dot where that is decided."""
    place = {name: index for index, name in enumerate(order)}
    chance_SxS = np.full((len(order), len(order)), np.nan)
    figure, (axis,) = panels(1, width=5.6, height=4.8)
    for row in pairs.to_dict("records"):
        a, b = place[row["first"]], place[row["second"]]
        chance_SxS[a, b], chance_SxS[b, a] = row[column], 1 - row[column]
        if row[decided]:
            axis.scatter([b, a], [a, b], s=8, color="white")
    drawn = axis.imshow(chance_SxS, cmap="RdBu", vmin=0.0, vmax=1.0)
    axis.grid(False)
    axis.set_xticks(range(len(order)), order, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(order)), order, fontsize=8)
    figure.colorbar(drawn, ax=axis, shrink=0.8).set_label("probability that the row is faster", fontsize=8)
    return figure


def by_workload(order: Sequence[str], workloads: Sequence[str], share_SxWxK: np.ndarray) -> Figure:
    """Times of single studies as shares of the budget, a panel a workload; those that never arrive at the right edge.
    """
    figure, axes = panels(len(workloads), width=1.75, height=3.6)
    place = np.arange(len(order))[::-1]
    for column, (axis, name) in enumerate(zip(axes, workloads, strict=True)):
        for row, shares_K in zip(place, share_SxWxK[:, column], strict=True):
            solved = np.isfinite(shares_K)
            axis.scatter(shares_K[solved], np.full(solved.sum(), row), s=10, color=SECOND, alpha=0.6, linewidths=0)
            axis.scatter(np.full((~solved).sum(), 1.06), row + np.linspace(-0.25, 0.25, max((~solved).sum(), 1))[
                :(~solved).sum()], s=7, color=ACCENT, marker="x", linewidths=0.7)
        axis.axvline(1.0, color=GREY, linewidth=0.6)
        axis.set_xlim(0, 1.12)
        axis.set_title(name.replace("_", "\n", 1), fontsize=8)
        axis.set_xticks([0, 0.5, 1])
    axes[0].set_yticks(place, order, fontsize=8)
    figure.supxlabel("steps to the target, share of the budget; crosses never arrive", fontsize=8)
    return figure
