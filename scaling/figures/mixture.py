"""Figures of loss against mixture: curves by share, the ratio law with its critical share, critical shares by size.

Tables have one row a run, domain and step, with columns N, D, share, seed, domain, change, last, as a study makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp
from scaling.fitting import Decision, Fit


def _title(axis: Axes, parameters: float) -> None:
    axis.set_title(f"{parameters:,.0f} parameters", fontsize=9)


def change_curves(table: pd.DataFrame, domain: str) -> Figure:
    """Mean change of a domain's loss against the trunk over tokens, one panel a size, one line a share."""
    rows = table[table.domain == domain]
    sizes, shares = np.sort(rows.N.unique()), np.sort(rows.share.unique())
    figure, axes = panels(len(sizes))
    for axis, size in zip(axes, sizes, strict=True):
        for share, colour in zip(shares, ramp(shares), strict=True):
            line = rows[(size == rows.N) & (rows.share == share)].groupby("D").change.mean()
            axis.plot(line.index, line.to_numpy(), color=colour, marker=".", linewidth=1.2, label=f"{share:.0%}")
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("tokens after the branch", fontsize=8)
        _title(axis, size)
    axes[0].set_ylabel(f"{domain} loss less the trunk's, nats/token", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), title="share", loc="outside right center", fontsize=7,
                  title_fontsize=8, frameon=False)
    return figure


def ratio_law(
    table: pd.DataFrame, domain: str, fits: Mapping[float, Fit], decisions: Mapping[float, Decision], tolerance: float
) -> Figure:
    """Last change of the general loss against the target share: runs, the law with its band, the critical share."""
    rows = table[(table.domain == domain) & table["last"]]
    figure, axes = panels(len(fits))
    for axis, (size, fit) in zip(axes, fits.items(), strict=True):
        runs = rows[size == rows.N]
        grid_G = np.linspace(runs.share[runs.share > 0].min(), 1.0, 200)
        low_G, high_G = fit.interval({"R": grid_G})
        axis.fill_between(grid_G, low_G, high_G, color=SECOND, alpha=0.2, linewidth=0, label="95% of the law")
        axis.plot(grid_G, fit.predict({"R": grid_G}), color=SECOND, linewidth=1.4, label="CMR ratio law")
        axis.plot(runs.share, runs.change, "o", color=INK, markersize=3.5, alpha=0.7, label="runs")
        axis.axhline(tolerance, color=GREY, linestyle="--", linewidth=1, label="tolerance")
        decision = decisions[size]
        if decision.refusal is None:
            axis.axvspan(decision.low, decision.high, color=ACCENT, alpha=0.15, linewidth=0)
            axis.axvline(decision.value, color=ACCENT, linewidth=1.4, label="critical share")
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        axis.set_xlabel("share of the target domain", fontsize=8)
        _title(axis, size)
    axes[0].set_ylabel(f"{domain} loss less the trunk's, nats/token", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def draw_decision(axis: Axes, x: float, decision: Decision, colour: str | tuple[float, ...]) -> None:
    """A decision with its interval, hollow and grey where it was refused; nothing where a number is missing."""
    if np.isnan([decision.value, decision.low, decision.high]).any():
        return
    refused = decision.refusal is not None
    error = [[max(decision.value - decision.low, 0)], [max(decision.high - decision.value, 0)]]
    axis.errorbar([x], [decision.value], error, fmt="o", capsize=3, markersize=5, color=GREY if refused else colour,
                  markerfacecolor="white" if refused else colour)


def sizes_axis(axis: Axes, sizes: Sequence[float]) -> None:
    """x: parameters, logarithmic, a tick a size."""
    axis.set_xscale("log")
    axis.set_xticks(list(sizes), [f"{size:,.0f}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("parameters without embeddings", fontsize=8)


def shares_axis(axis: Axes, label: str) -> None:
    """y: shares from 0 to 1."""
    axis.set_ylabel(label, fontsize=8)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylim(0, 1.02)


def critical_by_size(
    sizes: Sequence[float], ways: Mapping[str, Sequence[Decision]], measured: Sequence[Sequence[float]]
) -> Figure:
    """Critical share against parameters by each way, with intervals; a refused decision is drawn hollow and grey."""
    figure, (axis,) = panels(1, width=5.0, height=3.4)
    for shift, (name, decisions), colour in zip((0.96, 1.04), ways.items(), (SECOND, ACCENT), strict=True):
        for size, decision in zip(sizes, decisions, strict=True):
            draw_decision(axis, size * shift, decision, colour)
        axis.plot([], [], "o", color=colour, label=name)
    for size, values in zip(sizes, measured, strict=True):
        axis.plot([size] * len(values), values, "_", color=INK, markersize=12)
    axis.plot([], [], "_", color=INK, markersize=10, label="measured, by trunk")
    axis.plot([], [], "o", color=GREY, markerfacecolor="white", label="refused")
    sizes_axis(axis, sizes)
    shares_axis(axis, "critical share of the target domain")
    axis.legend(fontsize=7, frameon=False)
    return figure


def held_out_size(held_out: pd.DataFrame) -> Figure:
    """Loss of the size held out: measured against predicted from smaller sizes, one panel a role."""
    roles = sorted(held_out.role.unique())
    figure, axes = panels(len(roles), width=3.6, height=3.4, share_y=False)
    for axis, role in zip(axes, roles, strict=True):
        rows = held_out[held_out.role == role]
        error = [np.maximum(rows.predicted - rows.low, 0), np.maximum(rows.high - rows.predicted, 0)]
        axis.errorbar(rows.loss, rows.predicted, error, fmt="o", color=SECOND, markersize=4, linewidth=1, capsize=2,
                      label="D-CPT from smaller sizes")
        axis.plot(rows.loss, rows.next_smaller, "x", color=GREY, markersize=5, label="loss of the next smaller size")
        span = [rows.loss.min(), rows.loss.max()]
        axis.plot(span, span, color=INK, linewidth=0.8)
        axis.set_xlabel(f"measured {role} loss, nats/token", fontsize=8)
        axis.set_ylabel("predicted", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    return figure
