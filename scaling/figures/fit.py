"""Figures of one fit: the law with its band through the data, residuals, predicted against observed.

All are drawn from the fit alone, which carries its points. Letters: G grid points, M points.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from scaling.figures.axes import (
    frame_y,
    grid,
    input_named,
    label_of,
    log_of,
    said,
    set_log,
    set_x,
    target_label,
    titled,
)
from scaling.figures.style import ACCENT, GREY, INK, SECOND
from scaling.fitting import Fit, Points
from scaling.laws.law import Input

_GRID = 200
_MOST_CURVES = 6
_QUANTILES = (0.05, 0.35, 0.65, 0.95)


def curves(fit: Fit, along: str, by: str | None = None, *, floor: str | None = None, level: float = 0.95) -> Figure:
    """The target against one input: data, the law, and the bootstrap band of its mean curve.

    `by`: an input that colours points and curves; one curve for each of its values, or at four quantiles where they are
    more than six. Inputs that are neither stand at their median, shares of a mixture in the proportions of the mean
    mixture: points are moved there along the law. `floor`: a parameter to subtract, the irreducible loss, so that a
    power law is straight; points below it are counted in the title. Held-out points are hollow. Raises ValueError for
    an input or parameter that the law has not, and for two shares of one mixture.
    """
    if floor is not None and floor not in fit.parameters:
        raise ValueError(f"floor: law {fit.law.name!r} has no parameter {floor!r}; it has {', '.join(fit.parameters)}")
    figure, (axis,) = grid(1, width=6.4, height=4.4)
    below = _draw_curves(axis, fit, along, by, floor, level)
    axis.set_ylabel(_less(fit, floor), fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    notes = [_band_note(fit, level), *_still_note(fit, {along, by})]
    return titled(figure, fit, *notes, *[f"{below} points lie below {floor} and are not drawn"] * bool(below))


def shares(fit: Fit, *, level: float = 0.95) -> Figure:
    """The target against the share of each domain, one panel each, the other shares in the proportions of the mean
    mixture; points are moved there along the law. Raises ValueError for a law without a mixture.
    """
    if not fit.law.simplex:
        raise ValueError(f"law {fit.law.name!r} has no shares of a mixture; draw curves(fit, along) instead")
    figure, axes = grid(len(fit.law.simplex))
    for axis, domain in zip(axes, fit.law.simplex, strict=True):
        _draw_curves(axis, fit, domain, None, None, level)
        axis.set_xlabel(f"share of {domain}", fontsize=8)
    axes[0].set_ylabel(target_label(fit.law), fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return titled(figure, fit, _band_note(fit, level), *_still_note(fit, set(fit.law.simplex[:1])))


def residuals(fit: Fit) -> Figure:
    """Residuals on the scale of the objective against the prediction and each input.

    Points of one group (run) are joined by a line, so that noise they share is seen. Held-out points are hollow.
    """
    log = fit.objective.scale == "log"
    prediction_M, target_M = _predicted(fit), fit.points.target_M
    residual_M = np.log(target_M / prediction_M) if log else target_M - prediction_M
    figure, axes = grid(1 + len(fit.law.inputs), height=2.8)
    for axis, i in zip(axes, (None, *fit.law.inputs), strict=True):
        x_M = prediction_M if i is None else fit.points.inputs[i.name]
        _join_groups(axis, fit.points, x_M, residual_M)
        _scatter(axis, fit.points, x_M, residual_M, SECOND)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xlabel(label_of(i) if i else f"predicted\n{target_label(fit.law)}", fontsize=8)
        if i:
            set_x(axis, i, x_M)
    axes[0].set_ylabel("log(observed / predicted)" if log else "observed - predicted", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return titled(figure, fit, *_errors_note(fit))


def predicted(fit: Fit, *, level: float = 0.95) -> Figure:
    """Predicted against observed; held-out points are hollow, with the interval of the mean curve."""
    figure, (axis,) = grid(1, width=5.0, height=4.6)
    prediction_M, target_M, held_M = _predicted(fit), fit.points.target_M, fit.points.held_M
    notes = _errors_note(fit)
    if held_M.any() and len(fit.draws_BxP):
        low_K, high_K = fit.interval(_readable(fit, fit.points.held.inputs), level)
        own_K = prediction_M[held_M]
        error = [np.maximum(own_K - low_K, 0), np.maximum(high_K - own_K, 0)]
        axis.errorbar(target_M[held_M], own_K, error, fmt="none", ecolor=ACCENT, linewidth=0.8, alpha=0.7)
        notes.append(f"bars: {level:.0%} of the mean curve")
    _scatter(axis, fit.points, target_M, prediction_M, SECOND)
    both_M = np.concatenate([target_M, prediction_M])
    span = [both_M.min(), both_M.max()]
    axis.plot(span, span, color=INK, linewidth=0.8)
    if fit.objective.scale == "log":
        set_log(axis, "x")
        set_log(axis, "y")
    axis.set_xlabel(f"observed\n{target_label(fit.law)}", fontsize=8)
    axis.set_ylabel("predicted", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    return titled(figure, fit, *notes)


def colouring(fit: Fit, along: str) -> str | None:
    """The input to colour a figure along another one by: a label, else the one that spans most decades (else has most
    values); never a second share of one mixture. None where there is none.
    """
    if labelled := [i.name for i in fit.law.inputs if i.labels]:
        return labelled[0]
    mixture = set(fit.law.simplex) if along in fit.law.simplex else set()
    seen = {i: fit.points.fitted.inputs[i.name] for i in fit.law.inputs if i.name not in {along, *mixture}}
    ranked = sorted(seen, key=lambda i: (_decades(i, seen[i]), np.unique(seen[i]).size), reverse=True)
    return ranked[0].name if ranked else None


def _decades(i: Input, x_M: np.ndarray) -> float:
    return math.log10(x_M.max() / x_M.min()) if log_of(i, x_M) else 0.0


def _predicted(fit: Fit) -> np.ndarray:
    return fit.predict(_readable(fit, fit.points.inputs))


def _readable(fit: Fit, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inputs as a fit reads them: one shape, and labels in words where the points hold codes."""
    arrays = dict(zip(inputs, np.broadcast_arrays(*inputs.values()), strict=True))
    for i in fit.law.inputs:
        if i.labels:
            arrays[i.name] = np.array(i.labels, dtype=object)[arrays[i.name].astype(int)]
    return arrays


def _placed(fit: Fit, shown: Mapping[str, Any]) -> dict[str, Any]:
    """All inputs, given those shown: the others at their median, the rest of a mixture in its mean proportions."""
    seen, mixture = fit.points.fitted.inputs, fit.law.simplex
    rest: dict[str, Any] = {
        name: float(np.quantile(x_M, 0.5, method="nearest")) for name, x_M in seen.items() if name not in mixture
    }
    if mixture:
        open_names = [name for name in mixture if name not in shown]
        mean = {name: float(seen[name].mean()) for name in open_names}
        left = 1.0 - sum(np.asarray(shown[name]) for name in mixture if name in shown)
        rest |= {name: left * mean[name] / sum(mean.values()) for name in open_names}
    return {name: shown[name] if name in shown else rest[name] for name in fit.law.input_names}


def _moved(fit: Fit, shown: Mapping[str, np.ndarray]) -> np.ndarray:
    """The targets, moved along the law to where the inputs that are not shown stand."""
    here_M, there_M = _predicted(fit), fit.predict(_readable(fit, _placed(fit, shown)))
    if fit.objective.scale == "log":
        return fit.points.target_M * there_M / here_M
    return fit.points.target_M + there_M - here_M


def _errors_note(fit: Fit) -> list[str]:
    held = [f"held out: {fit.held_out}"] if fit.held_out else []
    return [f"fitted: {fit.errors}", *held]


def _less(fit: Fit, floor: str | None) -> str:
    return f"{target_label(fit.law)}, less {floor} = {fit.parameters[floor]:.4g}" if floor else target_label(fit.law)


def _band_note(fit: Fit, level: float) -> str:
    if not len(fit.draws_BxP):
        return "no band: the fit has no bootstrap draws"
    return f"band: {level:.0%} of the mean curve, {len(fit.draws_BxP)} draws"


def _still_note(fit: Fit, shown: set[str | None]) -> list[str]:
    """What was said of the inputs that are not shown."""
    placed = _placed(fit, {})
    places = [said(i, placed[i.name]) for i in fit.law.inputs if i.name not in {*fit.law.simplex, *shown}]
    if set(fit.law.simplex) - shown:
        places.append("other shares in their mean proportions")
    return [f"points moved along the law to {', '.join(places)}"] if places else []


def _colours(fit: Fit, colour: Input | None) -> dict[float, tuple[float, ...]]:
    """A colour for each value of the colouring input, dark to light."""
    if colour is None:
        return {}
    x_M = fit.points.inputs[colour.name]
    norm = (LogNorm if log_of(colour, x_M) else Normalize)(x_M.min(), x_M.max())
    return {float(value): colormaps["viridis"](0.9 * float(norm(value))) for value in np.unique(x_M)}


def _curve_values(fit: Fit, colour: Input) -> list[float]:
    """Values of the colouring input at which a curve is drawn."""
    x_M = fit.points.inputs[colour.name]
    values = np.unique(x_M)
    if len(values) > _MOST_CURVES and not colour.labels:
        values = np.unique(np.quantile(x_M, _QUANTILES, method="nearest"))
    return [float(value) for value in values]


def _draw_curves(axis: Axes, fit: Fit, along: str, by: str | None, floor: str | None, level: float) -> int:
    """Draws points and curves; returns how many points lie below the floor, and so not on a logarithmic axis."""
    x, colour = input_named(fit.law, along), input_named(fit.law, by) if by else None
    if {along, by} <= set(fit.law.simplex):
        raise ValueError(f"along and by: {along} and {by} are shares of one mixture; colour by another input, or none")
    base = fit.parameters[floor] if floor else 0.0
    x_M, ink = fit.points.inputs[along], _colours(fit, colour)
    colour_M: Any = SECOND
    low, high = float(x_M.min()), float(x_M.max())
    grid_G = np.clip(np.geomspace(low, high, _GRID), low, high) if log_of(x, x_M) else np.linspace(low, high, _GRID)
    if colour is None:
        _draw_curve(axis, fit, along, {along: grid_G}, base, SECOND, "law", level)
        shown = {along: x_M}
    else:
        for value in _curve_values(fit, colour):
            inputs = {along: grid_G, colour.name: value}
            _draw_curve(axis, fit, along, inputs, base, ink[value], said(colour, value), level)
        shown = {along: x_M, colour.name: fit.points.inputs[colour.name]}
        colour_M = np.array([ink[float(value)] for value in shown[colour.name]])
    moved_M = _moved(fit, shown) - base
    _scatter(axis, fit.points, x_M, moved_M, colour_M)
    axis.set_xlabel(label_of(x), fontsize=8)
    set_x(axis, x, x_M)
    if logarithmic := fit.objective.scale == "log" or floor is not None:
        axis.set_yscale("log")
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    frame_y(axis, np.concatenate([moved_M, *lines]), logarithmic)
    if logarithmic:
        set_log(axis, "y")
    return int((moved_M <= 0).sum()) if logarithmic else 0


def _draw_curve(
    axis: Axes, fit: Fit, along: str, shown: Mapping[str, Any], base: float, ink: Any, label: str, level: float
) -> None:
    inputs = _readable(fit, _placed(fit, shown))
    axis.plot(shown[along], fit.predict(inputs) - base, color=ink, linewidth=1.4, label=label)
    if len(fit.draws_BxP):
        low_G, high_G = fit.interval(inputs, level)
        axis.fill_between(shown[along], low_G - base, high_G - base, color=ink, alpha=0.2, linewidth=0)


def _scatter(axis: Axes, points: Points, x_M: np.ndarray, y_M: np.ndarray, ink: Any) -> None:
    """Fitted points filled, held-out points hollow; the legend says how many of each."""
    for rows_M, hollow in ((~points.held_M, False), (points.held_M, True)):
        if not rows_M.any():
            continue
        own = ink[rows_M] if isinstance(ink, np.ndarray) else (ACCENT if hollow else ink)
        axis.scatter(
            x_M[rows_M],
            y_M[rows_M],
            s=18 if hollow else 9,
            zorder=3,
            linewidth=0.9 if hollow else 0,
            facecolors="none" if hollow else own,
            edgecolors=own if hollow else "none",
            alpha=0.8,
            label=f"{'held out' if hollow else 'fitted'}, n = {int(rows_M.sum())}",
        )


def _join_groups(axis: Axes, points: Points, x_M: np.ndarray, y_M: np.ndarray) -> None:
    """One thin line a group of several points; a nan between groups lifts the pen."""
    if points.groups == len(points):
        return
    order_M = np.lexsort((x_M, points.group_M))
    ends_K = np.flatnonzero(np.diff(points.group_M[order_M])) + 1
    lines = [np.insert(z_M[order_M].astype(float), ends_K, np.nan) for z_M in (x_M, y_M)]
    axis.plot(*lines, color=GREY, linewidth=0.5, alpha=0.6)
