"""Figures of the dynamics of continual pre-training: predicted curves, errors, potentials, shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log
from scaling.figures.style import ACCENT, GREY, INK, SECOND, ramp


def predicted(held_out: pd.DataFrame, domains: Sequence[str]) -> Figure:
    """Curves of unseen schedules, one panel a domain and schedule, one colour a potential: measured points, the law
    (line) and the mean curve of the seen schedules (dashes).

    Rows of one seed, share and peak with columns domain, schedule, potential, step, loss, predicted, mean.
    """
    schedules, potentials = sorted(held_out.schedule.unique()), np.sort(held_out.potential.unique())
    figure, axes = grid(len(domains) * len(schedules), columns=len(schedules), width=4.2, height=3.1)
    for axis, (domain, schedule) in zip(axes, [(d, name) for d in domains for name in schedules], strict=True):
        for potential, colour in zip(potentials, ramp(potentials), strict=True):
            rows = held_out[(held_out.domain == domain) & (held_out.schedule == schedule)
                            & (held_out.potential == potential)].sort_values("step")
            axis.plot(rows.step, rows.loss, "o", color=colour, markersize=3.5, label=f"potential {potential:g}")
            axis.plot(rows.step, rows.predicted, color=colour, linewidth=1.3)
            axis.plot(rows.step, rows["mean"], color=colour, linewidth=1.0, linestyle=":")
        axis.set_title(f"{schedule}, not seen by the fit", fontsize=9)
        axis.set_xlabel("steps on the new domain", fontsize=8)
        axis.set_ylabel(f"{domain} loss, nats/token", fontsize=8)
    axes[0].plot([], [], color=GREY, linewidth=1.3, label="law")
    axes[0].plot([], [], color=GREY, linewidth=1.0, linestyle=":", label="mean of seen schedules")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def errors(scores: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Relative errors on unseen curves by seed, one panel a part of the curve; `names`: label of each column drawn.

    Rows have columns part, form, domain, seed and those of `names`.
    """
    parts = list(dict.fromkeys(scores.part))
    figure, axes = grid(len(parts), width=4.6, height=3.2)
    for axis, part in zip(axes, parts, strict=True):
        rows = scores[scores.part == part]
        cases = list(rows[["domain", "form"]].drop_duplicates().itertuples(index=False, name=None))
        for i, ((column, label), colour) in enumerate(zip(names.items(), (ACCENT, GREY, SECOND), strict=False)):
            for place, (domain, form) in enumerate(cases):
                values = 100 * rows.loc[(rows.domain == domain) & (rows.form == form), column]
                axis.plot(np.full(len(values), place + 0.16 * (i - 0.5)), values, "o", color=colour, markersize=4,
                          alpha=0.7, label=label if place == 0 else None)
        axis.set_xticks(range(len(cases)), [f"{domain},\n{form}" for domain, form in cases], fontsize=7)
        axis.set_title(part, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("mean relative error, %", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def potentials(rows: pd.DataFrame, domains: Sequence[str]) -> Figure:
    """Last loss less that at the lowest loss potential of the same seed, one panel a domain, one line a schedule: mean
    and range over seeds. Rows have columns domain, schedule, potential, seed, loss.
    """
    keys = ["domain", "schedule", "seed"]
    lowest = rows[rows.potential == rows.potential.min()].set_index(keys).loss.rename("lowest")
    rows = rows.join(lowest, on=keys)
    rows = rows.assign(change=rows.loss - rows.lowest)
    schedules = sorted(rows.schedule.unique())
    figure, axes = grid(len(domains), width=4.0, height=3.2)
    for axis, domain in zip(axes, domains, strict=True):
        for i, (schedule, colour) in enumerate(zip(schedules, ramp(np.arange(len(schedules))), strict=True)):
            line = rows[(rows.domain == domain) & (rows.schedule == schedule)].groupby("potential").change
            mean = line.mean()
            error = [mean - line.min(), line.max() - mean]
            axis.errorbar(mean.index + 0.012 * (i - 1.5), mean, error, color=colour, marker="o", markersize=4,
                          linewidth=1.2, capsize=2, label=schedule)
        axis.set_xlabel("loss potential: last rate of pre-training over its peak", fontsize=8)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_ylabel(f"last {domain} loss less that at potential {rows.potential.min():g}", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def shifts(rows: pd.DataFrame, domains: Sequence[str]) -> Figure:
    """Shift of the loss over steps, one panel a domain, one line a transfer point and potential: mean and range over
    seeds. Rows have columns domain, start, potential, step, seed, shift.
    """
    figure, axes = grid(len(domains), width=4.0, height=3.2)
    for axis, domain in zip(axes, domains, strict=True):
        lines = list(rows[(rows.domain == domain) & (rows.step > 0)].groupby(["start", "potential"]))
        for ((start, potential), line), colour in zip(lines, ramp(np.arange(len(lines))), strict=True):
            by_step = line.groupby("step")["shift"]
            axis.plot(by_step.mean(), color=colour, marker=".", linewidth=1.2,
                      label=f"from step {start}, potential {potential:g}")
            axis.fill_between(by_step.mean().index, by_step.min(), by_step.max(), color=colour, alpha=0.1, linewidth=0)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xlabel("steps after the transfer", fontsize=8)
        axis.set_ylabel(f"{domain}: loss on the new domain\nless loss on the old one, nats/token", fontsize=8)
        set_log(axis, "x")
    axes[0].legend(fontsize=7, frameon=False)
    return figure
