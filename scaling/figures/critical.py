"""Figures of the critical mixture ratio: turning points, the ratio against tokens and size, errors at unseen ratios.

Tables as in `scaling.figures.mixture`; N is parameters without embeddings, D tokens after the branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scaling.figures.axes import set_log
from scaling.figures.mixture import draw_decision, shares_axis, sizes_axis
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels, ramp
from scaling.fitting import Decision
from scaling.fitting.cmr import CriticalCurve


def turning_curves(
    table: pd.DataFrame, domain: str, curves: Mapping[float, CriticalCurve], tolerance: float
) -> Figure:
    """Change of the general loss over tokens at each ratio: means over trunks, the law, and where it turns.

    Framed at three times the tolerance: what rises beyond leaves the frame.
    """
    figure, axes = panels(len(curves), height=3.4)
    rows = table[(table.domain == domain) & (table.share > 0)]
    shares = np.sort(rows.share.unique())
    for axis, (size, curve) in zip(axes, curves.items(), strict=True):
        of_size = rows[size == rows.N]
        for share, colour in zip(shares, ramp(shares), strict=True):
            line = of_size[of_size.share == share].groupby("D").change.mean()
            grid_K = np.geomspace(line.index.min(), line.index.max(), 200)
            axis.plot(line.index, line.to_numpy(), ".", color=colour, markersize=4)
            axis.plot(grid_K, curve.general[share].predict({"T": grid_K}), color=colour, linewidth=1.2,
                      label=f"{share:.0%}")
            if share not in curve.left_out:
                turn = curve.turning[share].value
                axis.plot([turn], curve.general[share].predict({"T": [turn]}), "*", color=ACCENT, markersize=9)
        axis.axhline(tolerance, color=GREY, linestyle="--", linewidth=1)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xlabel("tokens after the branch", fontsize=8)
        axis.set_title(f"{size:,.0f} parameters", fontsize=9)
        set_log(axis, "x")
        axis.set_ylim(top=min(axis.get_ylim()[1], 3 * tolerance))
    axes[0].set_ylabel(f"{domain} loss less the trunk's, nats/token", fontsize=8)
    axes[0].plot([], [], "*", color=ACCENT, label="turns")
    axes[0].plot([], [], color=GREY, linestyle="--", label="tolerance")
    figure.legend(*axes[0].get_legend_handles_labels(), title="share", loc="outside right center", fontsize=7,
                  title_fontsize=8, frameon=False)
    return figure


def critical_by_tokens(curves: Mapping[float, CriticalCurve], level: float) -> Figure:
    """Critical ratio against tokens: turning points with their intervals, the law through them with its band.

    A ratio left out is hollow and grey, where it turns within the measured tokens at all. Intervals end at the frame.
    """
    figure, axes = panels(len(curves), height=3.2)
    for axis, (size, curve) in zip(axes, curves.items(), strict=True):
        first, last = next(iter(curve.general.values())).ranges["T"]
        for share, turn in curve.turning.items():
            left_out = share in curve.left_out
            if first <= turn.value <= last:
                low, high = np.clip(np.nan_to_num([turn.low, turn.high], nan=turn.value), first, last)
                axis.errorbar([turn.value], [share], xerr=[[turn.value - low], [high - turn.value]], fmt="o", capsize=2,
                              markersize=4, color=GREY if left_out else INK,
                              markerfacecolor="white" if left_out else INK)
        if curve.curve is not None:
            turned = [turn.value for share, turn in curve.turning.items() if share not in curve.left_out]
            grid_K = np.geomspace(min(turned), max(turned), 200)
            if len(curve.curve.draws_BxP):
                low_K, high_K = np.clip(curve.curve.interval({"T": grid_K}, level), 0, 1)
                axis.fill_between(grid_K, low_K, high_K, color=SECOND, alpha=0.2, linewidth=0)
            axis.plot(grid_K, np.clip(curve.curve.predict({"T": grid_K}), 0, 1), color=SECOND, linewidth=1.4)
        axis.set_title(f"{size:,.0f} parameters", fontsize=9)
        axis.set_xlabel("tokens after the branch", fontsize=8)
        axis.set_xlim(first / 1.1, last * 1.1)
        set_log(axis, "x")
    shares_axis(axes[0], "critical share of the target domain")
    axes[0].plot([], [], color=SECOND, label=f"CMR law, {level:.0%} interval")
    axes[0].plot([], [], "o", color=INK, markersize=4, label="turning point")
    axes[0].plot([], [], "o", color=GREY, markerfacecolor="white", markersize=4, label="left out")
    axes[0].legend(fontsize=7, frameon=False, loc="upper left")
    return figure


def shares_by_size(sizes: Sequence[float], panel: Mapping[str, Mapping[str, Sequence[Decision | None]]]) -> Figure:
    """Shares against parameters, one panel a way of deciding, one colour a number of tokens; refused ones are hollow.

    `panel`: by title, then by label, a decision (or None) a size.
    """
    figure, axes = panels(len(panel), width=4.4, height=3.4)
    for axis, (title, lines) in zip(axes, panel.items(), strict=True):
        shifts = np.linspace(0.94, 1.06, len(lines)) if len(lines) > 1 else [1.0]
        for shift, (label, decisions), colour in zip(shifts, lines.items(), ramp(np.arange(len(lines))), strict=True):
            for size, decision in zip(sizes, decisions, strict=True):
                if decision is not None:
                    draw_decision(axis, size * shift, decision, colour)
            axis.plot([], [], "o", color=colour, label=label)
        axis.plot([], [], "o", color=GREY, markerfacecolor="white", label="refused")
        axis.set_title(title, fontsize=9)
        sizes_axis(axis, sizes)
        axis.set_xlim(min(sizes) / 1.2, max(sizes) * 1.2)
        axis.legend(fontsize=7, frameon=False)
    shares_axis(axes[0], "share of the target domain")
    return figure


def unseen_errors(unseen: pd.DataFrame, bound: float) -> Figure:
    """Error at each ratio that was held out, by the law and by the straight line between its neighbours; ±`bound`.

    `unseen`: columns role, N, share, loss, law, line, variance (of law - loss, if the law is right).
    """
    roles = list(unseen.role.unique())
    figure, axes = panels(len(roles), width=4.4, height=3.2)
    for axis, role in zip(axes, roles, strict=True):
        rows = unseen[unseen.role == role]
        axis.axhspan(-bound, bound, color=SECOND, alpha=0.15, linewidth=0, label=f"±{bound:.2%}")
        noise = float(np.sqrt(2 / np.pi * rows.variance / rows.loss**2).mean())
        for side in (-noise, noise):
            axis.axhline(side, color=GREY, linestyle=":", linewidth=1, label="noise of the means" if side > 0 else None)
        for size, colour in zip(np.sort(rows.N.unique()), ramp(rows.N.unique()), strict=True):
            own = rows[size == rows.N]
            axis.plot(own.share, own.law / own.loss - 1, "o-", color=colour, markersize=4, linewidth=1,
                      label=f"{size:,.0f} parameters")
            axis.plot(own.share, own.line / own.loss - 1, "x", color=colour, markersize=4)
        axis.plot([], [], "x", color=INK, label="straight line")
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_title(f"{role} loss", fontsize=9)
        axis.set_xlabel("share held out", fontsize=8)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes[0].set_ylabel("predicted over measured, less 1", fontsize=8)
    axes[-1].legend(fontsize=7, frameon=False)
    return figure
