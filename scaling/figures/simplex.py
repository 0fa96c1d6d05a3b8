"""Figures over mixtures of three domains: the simplex as a triangle, each corner one domain alone.

Letters: M mixtures, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from scaling.figures.style import ACCENT, GREY, INK, SECOND, panels

_HEIGHT = math.sqrt(3) / 2
_CORNERS_3x2 = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, _HEIGHT]])  # of the domains, in order
_COLOURS = (INK, INK, INK, SECOND, ACCENT, "#15803d", "#7e22ce", "#0e7490", "#be185d")
_SHAPES = "*o^sDvPXdph<>"  # more than colours: a name beyond those has a shape of its own


@dataclass(frozen=True, eq=False)
class Mark:
    """A mixture to show, with the mixtures of its draws where it has an interval."""

    share_3: np.ndarray
    draws_Bx3: np.ndarray


def in_plane(share_Mx3: np.ndarray) -> np.ndarray:
    """Places of mixtures in the triangle of side 1, [M, 2]. ValueError for another number of domains."""
    if share_Mx3.shape[-1] != 3:
        raise ValueError(f"shares: of {share_Mx3.shape[-1]} domains, a triangle shows three; choose three to draw")
    return share_Mx3 @ _CORNERS_3x2


def landscape(
    domains: Sequence[str], share_Mx3: np.ndarray, losses: Mapping[str, np.ndarray], marks: Mapping[str, Mapping],
    unit: str = "nats/token",
) -> Figure:
    """A panel a target: its loss at measured mixtures as contours above the least, and marks by name with their draws.

    `losses` and `marks` by target; `marks[target]` maps a name to a `Mark`. A name has one colour in all panels.
    """
    figure, axes = panels(len(losses), width=4.6, height=4.4, share_y=False)
    names = list(dict.fromkeys(name for some in marks.values() for name in some))
    for axis, (target, loss_M) in zip(axes, losses.items(), strict=True):
        _triangle(axis, domains)
        above_M = np.maximum(loss_M - loss_M.min(), 0)
        places_Mx2 = in_plane(share_Mx3)
        levels = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
        levels = levels[levels < above_M.max()]
        drawn = axis.tricontour(Triangulation(*places_Mx2.T), above_M, levels=levels[1:], colors=GREY, linewidths=0.7)
        axis.clabel(drawn, fontsize=6, fmt="+%g")
        axis.plot(*places_Mx2.T, ".", color=GREY, markersize=2.5, zorder=1)
        for k, name in enumerate(names):
            if name in marks[target]:
                _mark(axis, marks[target][name], _COLOURS[k % len(_COLOURS)], _SHAPES[k % len(_SHAPES)], name)
        axis.set_title(f"{target}: {unit} above the least, {loss_M.min():.3f}", fontsize=9, pad=14)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _triangle(axis: Axes, domains: Sequence[str]) -> None:
    axis.plot(*np.vstack([_CORNERS_3x2, _CORNERS_3x2[:1]]).T, color=INK, linewidth=0.8)
    for (x, y), domain in zip(_CORNERS_3x2, domains, strict=True):
        axis.text(x, y + (0.03 if y else -0.03), domain, ha="center", va="bottom" if y else "top", fontsize=8)
    axis.set(xlim=(-0.1, 1.1), ylim=(-0.09, _HEIGHT + 0.09), aspect="equal")
    axis.axis("off")


def _mark(axis: Axes, mark: Mark, colour: str, shape: str, name: str) -> None:
    if len(mark.draws_Bx3):
        axis.plot(*in_plane(mark.draws_Bx3).T, ".", color=colour, markersize=2, alpha=0.12, zorder=2)
    x, y = in_plane(mark.share_3)
    axis.plot([x], [y], shape, color=colour, markersize=8, markeredgecolor="white", zorder=4, label=name)
