"""Figures of decisions that were checked: predicted against measured, rows held out and trials trained after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels
from scaling.fitting import Decision


def held_out_rows(tables: Mapping[str, pd.DataFrame], guesses: Sequence[str]) -> Figure:
    """Predicted against measured loss of held-out rows, a panel a title.

    Columns loss, predicted, low, high (of the law's curve), guess; `guesses` names the guess of each panel.
    """
    figure, axes = grid(len(tables), columns=3, width=3.5, height=3.2)
    for axis, (title, rows), guess in zip(axes, tables.items(), guesses, strict=True):
        error = [np.maximum(rows.predicted - rows.low, 0), np.maximum(rows.high - rows.predicted, 0)]
        axis.plot(rows.loss, rows.guess, "x", color=GREY, markersize=3, alpha=0.6, label=guess)
        axis.errorbar(rows.loss, rows.predicted, error, fmt="o", color=SECOND, markersize=2.5, linewidth=0.5, alpha=0.6,
                      label="D-CPT")
        span = [rows.loss.min(), rows.loss.max()]
        axis.plot(span, span, color=INK, linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("measured, nats/token", fontsize=8)
        axis.set_ylabel("predicted", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    return figure


@dataclasses.dataclass(frozen=True)
class Checked:
    """One decision along `x`: the law's curve (x, loss, low, high), trials (x, measured, low, high), the value decided
    and its interval, and a limit on the loss where there is one.
    """

    title: str
    label: str
    curve: pd.DataFrame
    trials: pd.DataFrame
    decision: Decision
    loss: str
    limit: float | None
    is_share: bool


def checked(decisions: Sequence[Checked]) -> Figure:
    """What the law says along the thing decided, what it recommends, and what training there and beside it showed."""
    figure, axes = panels(len(decisions), width=3.9, height=3.8, share_y=False)
    for axis, each in zip(axes, decisions, strict=True):
        curve, trials = each.curve, each.trials
        axis.fill_between(curve.x, curve.low, curve.high, color=SECOND, alpha=0.2, linewidth=0, label="interval")
        axis.plot(curve.x, curve.loss, color=SECOND, linewidth=1.4, label="D-CPT")
        _decided(axis, each)
        error = [trials.measured - trials.low, trials.high - trials.measured]
        axis.errorbar(trials.x, trials.measured, error, fmt="o", color=INK, capsize=3, markersize=4,
                      label="trained, fresh trunks")
        if each.limit is not None:
            axis.axhline(each.limit, color=GREY, linestyle="--", linewidth=1, label="limit")
        axis.set_title(each.title, fontsize=9)
        axis.set_xlabel(each.label, fontsize=8)
        axis.set_ylabel(each.loss, fontsize=8)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=7, frameon=False)
        if each.is_share:
            axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            set_log(axis, "x")
    return figure


def _decided(axis: Axes, each: Checked) -> None:
    decision = each.decision
    low, high = each.curve.x.min(), each.curve.x.max()
    if low <= decision.value <= high:
        axis.axvline(decision.value, color=ACCENT, linewidth=1.4,
                     label="recommended" if decision.refusal is None else f"refused: {decision.refusal.kind}")
    if max(decision.low, low) < min(decision.high, high):
        axis.axvspan(max(decision.low, low), min(decision.high, high), color=ACCENT, alpha=0.12, linewidth=0)
    if decision.value > high:
        axis.plot([], [], ">", color=ACCENT, label="recommended: beyond")


def cross_domain(rows: pd.DataFrame) -> Figure:
    """Losses of a domain that the law was not fitted to: measured against predicted and the guesses `moved`, `scaled`.
    """
    figure, (axis,) = panels(1, width=4.6, height=4.0)
    axis.plot(rows.loss, rows.moved, "x", color=GREY, markersize=4, label="the seen domain's law, moved")
    axis.plot(rows.loss, rows.scaled, "+", color=ACCENT, markersize=5, label="moved and scaled")
    axis.plot(rows.loss, rows.predicted, "o", color=SECOND, markersize=3, alpha=0.7, label="cross-domain law")
    span = [rows.loss.min(), rows.loss.max()]
    axis.plot(span, span, color=INK, linewidth=0.8)
    axis.set_xlabel("measured, nats/token", fontsize=8)
    axis.set_ylabel("predicted", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return figure
