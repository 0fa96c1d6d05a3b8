"""Figures of proxies for mixtures: proxy against truth, and their correlations."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import grid
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels


def agreement(rows: pd.DataFrame, domains: Sequence[str], label: str) -> Figure:
    """Truth against proxy, one panel a domain, coloured by share; rows have columns domain, share, proxy, truth.

    The line is that of equal losses, where it crosses the panel.
    """
    figure, axes = grid(len(domains), width=3.9, height=3.2)
    for axis, domain in zip(axes, domains, strict=True):
        part = rows[rows.domain == domain]
        points = axis.scatter(part.proxy, part.truth, c=part.share, cmap="viridis", s=11, linewidths=0)
        frame = axis.get_xlim(), axis.get_ylim()
        ends = [min(frame[0][0], frame[1][0]), max(frame[0][1], frame[1][1])]
        axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        axis.set(xlim=frame[0], ylim=frame[1])
        axis.set_title(domain, fontsize=9)
        axis.set_xlabel(f"loss of {label}, nats/token", fontsize=8)
        axis.set_ylabel("loss of the trained model, nats/token", fontsize=8)
        bar = figure.colorbar(points, ax=axis, pad=0.02)
        bar.set_label("largest share" if part.equal.iloc[0] else f"share of {domain}", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return figure


def coefficients(rows: pd.DataFrame, strong: float) -> Figure:
    """Rank correlations with intervals, one panel a length, one line a domain, one mark a predictor of up to four.

    Rows have columns steps, domain, predictor, spearman, low, high; the dashed line is what was called strong.
    """
    lengths, domains = sorted(rows.steps.unique()), list(dict.fromkeys(rows.domain))
    predictors = list(dict.fromkeys(rows.predictor))
    figure, axes = panels(len(lengths), width=4.4, height=0.62 * len(domains) + 1.2)
    for axis, steps in zip(axes, lengths, strict=True):
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.axvline(strong, color=GREY, linewidth=0.9, linestyle="--")
        for i, (predictor, colour) in enumerate(zip(predictors, (SECOND, GREY, ACCENT, INK), strict=False)):
            part = rows[(rows.steps == steps) & (rows.predictor == predictor)]
            place = [len(domains) - domains.index(domain) - 0.17 * (i - 1.5) for domain in part.domain]
            error = [part.spearman - part.low, part.high - part.spearman]
            axis.errorbar(part.spearman, place, xerr=error, fmt="o", color=colour, markersize=4, capsize=2,
                          label=predictor)
        axis.set_title(f"{steps} steps", fontsize=9)
        axis.set_xlim(min(-0.25, rows.low.min() - 0.05), 1.05)
        axis.set_xlabel("rank correlation with trained models", fontsize=8)
        axis.set_yticks(range(len(domains), 0, -1), domains)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure
