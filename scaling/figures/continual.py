"""Figures of continual pre-training: change of each domain by re-warm peak and replay share, what is traded, curves,
differences with intervals.

Cells: one row a kind of run and domain with columns kind, rewarm, replay, domain, loss at the end, change, low, high
(nats/token, the change from the trunk with its interval; nan without a trunk).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp

HELD = "rate held"


def by_peak(cells: pd.DataFrame, domains: Sequence[str]) -> Figure:
    """Change against re-warm peak, one panel a domain, one line a replay share; first the rate that is held."""
    rows = cells[cells.kind.isin(["held", "rewarmed"])]
    peaks = np.sort(rows.rewarm[rows.kind == "rewarmed"].unique())
    shares = np.sort(rows.replay.unique())
    figure, axes = panels(len(domains), width=4.0, height=3.4, share_y=False)
    for axis, domain in zip(axes, domains, strict=True):
        for i, (share, colour) in enumerate(zip(shares, ramp(shares), strict=True)):
            line = rows[(rows.domain == domain) & (rows.replay == share)].sort_values(["kind", "rewarm"])
            place = np.where(line.kind == "held", 0, 1 + np.searchsorted(peaks, line.rewarm - 1e-9))
            error = [line.change - line.low, line.high - line.change]
            axis.errorbar(place + 0.06 * (i - len(shares) / 2), line.change, error, color=colour, marker="o",
                          markersize=4, linewidth=1.2, capsize=2, label=f"{share:.0%}")
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xticks(range(1 + len(peaks)), [HELD, *(f"{peak:g}" for peak in peaks)])
        axis.set_xlabel("peak after re-warming, share of the trunk's", fontsize=8)
        axis.set_ylabel(f"{domain} loss less the trunk's, nats/token", fontsize=8)
    axes[-1].legend(title="replay", fontsize=7, title_fontsize=8, frameon=False)
    return figure


def trade(cells: pd.DataFrame, old: str, new: str, extra: Mapping[str, str]) -> Figure:
    """Old domain's last loss against the new one's: a line a re-warm peak, from no replay to most; `extra`: kinds of
    run drawn as single marks, by label.
    """
    wide = cells.fillna({"rewarm": 1.0}).pivot_table(index=["kind", "rewarm", "replay"], columns="domain",
                                                     values="loss").reset_index()
    figure, (axis,) = panels(1, width=6.4, height=3.8)
    grid = wide[wide.kind.isin(["held", "rewarmed"]) & (wide.replay < 1)]
    lines = list(grid.groupby(["kind", "rewarm"]))
    for ((kind, peak), line), colour in zip(lines, ramp(np.arange(len(lines))), strict=True):
        line = line.sort_values("replay")
        label = HELD if kind == "held" else f"re-warmed to {peak:g}"
        axis.plot(line[new], line[old], color=colour, marker="o", markersize=4, linewidth=1.2, label=label)
        axis.annotate(f"{line.replay.iloc[0]:.0%}", (line[new].iloc[0], line[old].iloc[0]), fontsize=7, color=colour,
                      xytext=(4, 2), textcoords="offset points")
        axis.annotate(f"{line.replay.iloc[-1]:.0%}", (line[new].iloc[-1], line[old].iloc[-1]), fontsize=7,
                      color=colour, xytext=(4, 2), textcoords="offset points")
    for (label, kind), mark in zip(extra.items(), "sD^v", strict=False):
        one = wide[wide.kind == kind]
        axis.plot(one[new], one[old], mark, color=ACCENT, markersize=6, markerfacecolor="white", label=label)
        for row in one.to_dict("records") if len(one) > 1 else []:
            axis.annotate(f"{row['replay']:.0%} {old}", (row[new], row[old]), fontsize=7, color=ACCENT, xytext=(6, -3),
                          textcoords="offset points")
    axis.set_xlabel(f"{new} loss at the end, nats/token", fontsize=8)
    axis.set_ylabel(f"{old} loss at the end, nats/token", fontsize=8)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


def curves(lines: Mapping[str, pd.DataFrame], domains: Sequence[str], column: str, label: str) -> Figure:
    """A column over steps after the branch (log axis, 0 drawn at the left end), mean and range over seeds, one panel a
    domain; `lines` by name: rows of one kind of run with columns domain, step, seed and the column.
    """
    figure, axes = panels(len(domains), width=4.2, height=3.4, share_y=False)
    for axis, domain in zip(axes, domains, strict=True):
        for (name, rows), colour in zip(lines.items(), ramp(np.arange(len(lines))), strict=True):
            steps = rows[rows.domain == domain].groupby("step")[column]
            shown = np.maximum(steps.mean().index.to_numpy(float), 1)
            axis.plot(shown, steps.mean(), color=colour, marker=".", linewidth=1.3, label=name)
            axis.fill_between(shown, steps.min(), steps.max(), color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("steps after the branch", fontsize=8)
        axis.set_ylabel(f"{domain} {label}, nats/token", fontsize=8)
        set_log(axis, "x")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def differences(rows: pd.DataFrame, margin: float) -> Figure:
    """Differences with intervals, one line a contrast, one mark a domain, and the margin within which they are equal.

    Rows have columns contrast, domain, value, low, high.
    """
    names, domains = list(dict.fromkeys(rows.contrast)), list(dict.fromkeys(rows.domain))
    figure, (axis,) = panels(1, width=7.4, height=0.5 * len(names) + 1.1)
    axis.axvspan(-margin, margin, color=GREY, alpha=0.18, linewidth=0, label=f"within {margin:g}")
    axis.axvline(0, color=INK, linewidth=0.8)
    for i, (domain, colour) in enumerate(zip(domains, (SECOND, ACCENT, INK), strict=False)):
        part = rows[rows.domain == domain]
        place = [len(names) - names.index(name) - 0.2 * (i - 1) for name in part.contrast]
        error = [part.value - part.low, part.high - part.value]
        axis.errorbar(part.value, place, xerr=error, fmt="o", color=colour, markersize=4, capsize=2, label=domain)
    axis.set_yticks(range(len(names), 0, -1), names)
    axis.set_xlabel("difference of losses, nats/token", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure
