"""Figures of estimates: with intervals by name, predicted against measured, error against how much was learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scaling.figures.axes import grid
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp


def by_name(tables: Mapping[str, pd.DataFrame], label: str, bound: float) -> Figure:
    """A panel a table, a row a name: estimate with interval and the single values behind it; a dashed line at `bound`.

    Tables: name, value, low, high, and `values`, an array a row.
    """
    rows = max(map(len, tables.values()))
    figure, axes = panels(len(tables), width=4.4, height=0.8 + 0.3 * rows, share_y=False)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        for place, row in enumerate(table.to_dict("records")):
            values = np.asarray(row["values"])
            axis.plot(values, np.full(len(values), place + 0.18), ".", color=GREY, markersize=3, alpha=0.8)
            error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            axis.errorbar([row["value"]], [place], xerr=error, fmt="o", color=SECOND, markersize=4, capsize=2)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.axvline(bound, color=ACCENT, linewidth=1, linestyle="--")
        axis.set_yticks(range(len(table)), list(table["name"]))
        axis.set_ylim(len(table) - 0.5, -0.5)
        axis.set_xlabel(label, fontsize=8)
        axis.set_title(title, fontsize=9)
    return figure


def agreement(predictions: pd.DataFrame, names: Sequence[str], unit: str = "nats/token") -> Figure:
    """A panel a name: its predictions against the measured losses, a colour a domain.

    `predictions`: domain, measured, a column a name (nan where there is none).
    """
    figure, axes = grid(len(names), width=2.9, height=2.7)
    domains = sorted(predictions.domain.unique())
    span = [predictions.measured.min(), predictions.measured.max()]
    for axis, name in zip(axes, names, strict=True):
        for domain, colour in zip(domains, ramp(np.arange(len(domains))), strict=True):
            rows = predictions[predictions.domain == domain]
            axis.plot(rows.measured, rows[name], ".", color=colour, markersize=4, alpha=0.8, label=domain)
        axis.plot(span, span, color=INK, linewidth=0.8)
        shown = predictions[name].dropna()
        beyond = int(((shown < span[0] - np.ptp(span) / 4) | (shown > span[1] + np.ptp(span) / 4)).sum())
        axis.set_ylim(span[0] - np.ptp(span) / 4, span[1] + np.ptp(span) / 4)
        axis.set_title(name + (f" ({beyond} beyond)" if beyond else ""), fontsize=8)
        axis.set_xlabel(f"measured, {unit}", fontsize=8)
        axis.yaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel(f"predicted, {unit}", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def error_by_count(table: pd.DataFrame, bound: float, label: str) -> Figure:
    """Relative error against how many were learned from: each subset, their mean, a dashed line at `bound`.

    `table`: count, error, one row a subset.
    """
    figure, (axis,) = panels(1, width=5.0, height=3.2)
    axis.plot(table["count"], table.error, ".", color=GREY, markersize=4, label="a subset")
    mean = table.groupby("count").error.mean()
    axis.plot(mean.index, mean.to_numpy(), "o-", color=SECOND, markersize=4, label="mean")
    axis.axhline(bound, color=ACCENT, linewidth=1, linestyle="--", label=f"{bound:.1%}, published")
    axis.set_xlabel(label, fontsize=8)
    axis.set_ylabel("mean relative error on unseen mixtures", fontsize=8)
    axis.set_ylim(0, None)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axis.legend(fontsize=7, frameon=False)
    return figure
