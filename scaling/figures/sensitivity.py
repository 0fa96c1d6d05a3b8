"""Figures of the loss against the learning rate, treatment by treatment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scaling.figures.axes import grid, set_log
from scaling.figures.style import GREY, ramp


def losses_by_rate(losses: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> Figure:
    """A panel a title, a line an arm: mean over seeds of the capped loss at each peak rate, dots for the seeds.

    `losses`: arm, lr, seed, loss (inf where a run diverged: a cross), initial, capped. Dashed: the loss before
    training.
    """
    figure, axes = grid(len(panels), columns=3, width=3.1, height=2.8)
    low, high = losses.capped.min(), losses.initial.max()
    for axis, (title, arms) in zip(axes, panels.items(), strict=True):
        for arm, colour in zip(arms, ramp(np.arange(len(arms))), strict=True):
            runs = losses[losses.arm == arm]
            mean = runs.groupby("lr").capped.mean()
            axis.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.4, label=arm)
            done = runs[np.isfinite(runs.loss)]
            axis.plot(done.lr, done.capped, ".", color=colour, markersize=4, alpha=0.6)
            lost = runs[~np.isfinite(runs.loss)]
            axis.plot(lost.lr, lost.capped, "x", color=colour, markersize=5)
        axis.axhline(losses.initial.mean(), color=GREY, linestyle="--", linewidth=1)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
        set_log(axis, "x")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("peak learning rate", fontsize=8)
        axis.set_ylabel("final loss, nats/token", fontsize=8)
        axis.legend(fontsize=7, frameon=False, loc="center left")
    return figure
