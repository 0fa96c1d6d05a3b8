"""Loss over model size and tokens, with lines of equal compute and the path of compute-optimal runs."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.figures.axes import grid, input_named, label_of, said, set_log, target_label, titled
from scaling.figures.style import ACCENT, GREY, INK
from scaling.fitting import Fit
from scaling.fitting.compute_optimal import compute_optimal

_MARGIN = 2.0  # the plane reaches this factor beyond the runs
_BUDGETS = 9


def contour(fit: Fit, *, inputs: Mapping[str, float] | None = None, flops: float = 6.0, level: float = 0.95) -> Figure:
    """Contours of a law in N and D, the runs, isoFLOP lines C = flops*N*D, and the compute-optimal path N*(C) with its
    interval, over the runs' compute.

    `inputs` gives what else the law needs. Parts of the path that are refused are left out, and the reason is in the
    title. Raises ValueError for a law of other inputs (see `compute_optimal`).
    """
    seen = fit.points.inputs
    figure, (axis,) = grid(1, width=6.6, height=4.8)
    best = [compute_optimal(fit, float(c), inputs=inputs, flops=flops, level=level) for c in _budgets(fit, flops)]
    spans = [(x_M.min() / _MARGIN, x_M.max() * _MARGIN) for x_M in (seen["N"], seen["D"])]
    n_KxK, d_KxK = np.meshgrid(*(np.geomspace(*span, 80) for span in spans))
    loss_KxK = fit.predict({**(inputs or {}), "N": n_KxK, "D": d_KxK})
    lines = axis.contour(n_KxK, d_KxK, loss_KxK, levels=_levels(loss_KxK), cmap=colormaps["viridis"], linewidths=1.0)
    axis.clabel(lines, fontsize=7, fmt="%.4g")
    _runs(axis, fit)
    for one in best:
        n_G = np.geomspace(*spans[0], 50)
        axis.plot(n_G, one.compute / flops / n_G, color=GREY, linewidth=0.6, linestyle=":", zorder=1)
    known = [one for one in best if one.parameters.refusal is None]
    if known:
        _path(axis, [(one.parameters.value, one.tokens.value) for one in known])
        _path(axis, [(one.parameters.low, one.tokens.high) for one in known], "--")
        _path(axis, [(one.parameters.high, one.tokens.low) for one in known], "--")
    axis.set_xlim(*spans[0])
    axis.set_ylim(*spans[1])
    set_log(axis, "x")
    set_log(axis, "y")
    axis.set_xlabel(label_of(input_named(fit.law, "N")), fontsize=8)
    axis.set_ylabel(label_of(input_named(fit.law, "D")), fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="lower left")
    place = ["at " + ", ".join(said(input_named(fit.law, k), v) for k, v in inputs.items())] if inputs else []
    span = f"{best[0].compute:.2g} to {best[-1].compute:.2g} FLOPs"
    notes = [f"contours: {target_label(fit.law)}", *place, f"dotted: {flops:g}*N*D = {span}"]
    notes += [f"solid: compute-optimal, dashed: its {level:.0%} interval"] if known else []
    return titled(figure, fit, *notes, *dict.fromkeys(str(one.parameters.refusal) for one in best if one not in known))


def _budgets(fit: Fit, flops: float) -> np.ndarray:
    compute_M = flops * fit.points.inputs["N"] * fit.points.inputs["D"]
    return np.geomspace(compute_M.min(), compute_M.max(), _BUDGETS)


def _levels(loss_KxK: np.ndarray) -> np.ndarray:
    """Levels that share the plane evenly, so that the flat part is not empty."""
    return np.unique(np.round(np.quantile(loss_KxK, np.linspace(0.02, 0.97, 14)), 3))


def _runs(axis: Axes, fit: Fit) -> None:
    for rows_M, face, edge, name in (
        (~fit.points.held_M, INK, "none", "fitted runs"),
        (fit.points.held_M, "none", ACCENT, "held out"),
    ):
        if rows_M.any():
            n_K, d_K = (fit.points.inputs[i][rows_M] for i in ("N", "D"))
            axis.scatter(
                n_K, d_K, s=9, facecolors=face, edgecolors=edge, alpha=0.6, linewidth=0.9, label=name, zorder=2
            )


def _path(axis: Axes, places: list[tuple[float, float]], style: str = "-") -> None:
    n_K, d_K = np.array(places).T
    axis.plot(n_K, d_K, style, color=ACCENT, linewidth=1.6 if style == "-" else 0.9, zorder=3)
