"""Figures of mixtures that learn while they train: weights over time, distances and differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import grid
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels

_COLOURS = (ACCENT, SECOND, "#15803d", "#7e22ce", "#b45309", "#0e7490")


def weights_over_time(
    weights: Mapping[str, pd.DataFrame], domains: Sequence[str], target: Mapping[str, float], target_name: str
) -> Figure:
    """A panel a method: mean and range over runs of every domain's weight against steps, and dashed where the target
    has it. Tables have columns run_id, step and the domains.
    """
    figure, axes = grid(len(weights), columns=4, width=2.7, height=2.4)
    for axis, (name, table) in zip(axes, weights.items(), strict=True):
        for domain, colour in zip(domains, _COLOURS, strict=False):
            steps = table.groupby("step")[domain]
            axis.plot(steps.mean(), color=colour, linewidth=1.3, marker=".", markersize=3, label=domain)
            axis.fill_between(steps.mean().index, steps.min(), steps.max(), color=colour, alpha=0.15, linewidth=0)
            axis.axhline(target[domain], color=colour, linestyle="--", linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("steps", fontsize=8)
        axis.set_ylim(-0.03, 1.03)
    axes[0].set_ylabel("weight", fontsize=8)
    axes[0].plot([], [], color=GREY, linestyle="--", linewidth=0.8, label=target_name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(domains) + 1, fontsize=8,
                  frameon=False)
    return figure


def differences(rows: pd.DataFrame, domains: Sequence[str], rival: str, level: float) -> Figure:
    """A line a method, the best on top: its mean loss less the rival's, with its interval (thick) and the one corrected
    for the number of methods (thin), and each domain's difference. Columns method, value, low, high, wide_low,
    wide_high and the domains.
    """
    figure, (axis,) = panels(1, width=7.2, height=0.42 * len(rows) + 1.4)
    place = range(len(rows), 0, -1)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.hlines(place, rows.wide_low, rows.wide_high, color=INK, linewidth=0.9, label=f"{level:.0%}, all together")
    axis.hlines(place, rows.low, rows.high, color=INK, linewidth=3, alpha=0.7, label=f"{level:.0%}")
    axis.plot(rows.value, place, "o", color=INK, markersize=6, label="mean of domains")
    for domain, colour, mark in zip(domains, _COLOURS, "^vsDPX", strict=False):
        axis.plot(rows[domain], [y - 0.22 for y in place], mark, color=colour, markersize=4, alpha=0.8, label=domain)
    axis.set_yticks(place, rows.method)
    axis.set_ylim(0.3, len(rows) + 0.7)
    axis.set_xlabel(f"held-out loss less that of {rival}, nats/token", fontsize=8)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


def distances(rows: pd.DataFrame, start: float) -> Figure:
    """A line a method: its distance to the best mixture by run, and where it started. Columns method, distance."""
    names = rows.groupby("method").distance.mean().sort_values().index.tolist()
    figure, (axis,) = panels(1, width=6.0, height=0.38 * len(names) + 1.2)
    axis.axvline(start, color=GREY, linestyle="--", linewidth=1, label="equal shares, where all start")
    for place, name in zip(range(len(names), 0, -1), names, strict=True):
        own = rows.distance[rows.method == name]
        axis.plot(own, [place] * len(own), "o", color=SECOND, markersize=4, alpha=0.5)
        axis.plot([own.mean()], [place], "|", color=INK, markersize=14, markeredgewidth=2)
    axis.plot([], [], "o", color=SECOND, alpha=0.5, label="a run")
    axis.plot([], [], "|", color=INK, markersize=10, markeredgewidth=2, label="mean")
    axis.set_yticks(range(len(names), 0, -1), names)
    axis.set_xlim(left=-0.01)
    axis.set_xlabel("distance of the last weights to the best mixture (total variation)", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure
