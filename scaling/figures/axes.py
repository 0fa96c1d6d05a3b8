"""What the figures of fits share: grids of axes, scales, and labels with units."""

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from scaling.fitting import Fit
from scaling.laws.law import Input, Law

_LOG_FROM = 5.0  # an axis is logarithmic where its values span at least this factor
_LETTERS_AN_INCH, _LABEL = 16, 48  # at 8 points: of a title, in one line of a label


def grid(count: int, columns: int = 3, width: float = 3.5, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Rows of axes, `columns` a row (four as two by two); the places left over stay empty."""
    columns = 2 if count == 4 else min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=8)
    return figure, axes[:count]


def log_of(i: Input, values_K: np.ndarray) -> bool:
    """Whether an input is drawn on a logarithmic axis: unbounded, positive, and spanning a factor of 5."""
    return bool(math.isinf(i.high) and (values_K > 0).all() and values_K.max() >= _LOG_FROM * values_K.min())


def set_x(axis: Axes, i: Input, values_K: np.ndarray) -> None:
    """The x axis of an input: logarithmic, linear, or the names of its labels."""
    if i.labels:
        axis.set_xticks(range(len(i.labels)), i.labels, rotation=90 if len(i.labels) > 4 else 0)
    elif log_of(i, values_K):
        set_log(axis, "x")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6))


def said(i: Input, value: float) -> str:
    """An input's value in words: "N = 7e+09", "domain = code"."""
    return f"{i.name} = {i.labels[int(value)] if i.labels else f'{value:.3g}'}"


def set_log(axis: Axes, which: str) -> None:
    """A logarithmic axis ("x" or "y") with readable ticks: powers of ten, or plain numbers over less than a decade.

    To be called when all is drawn.
    """
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    side = axis.xaxis if which == "x" else axis.yaxis
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    if high < 30 * low:
        side.set_minor_locator(NullLocator())
        if high < 4 * low:
            side.set_major_locator(MaxNLocator(5))
        else:
            side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    else:
        side.set_major_locator(LogLocator(numticks=7))
        side.set_minor_formatter(NullFormatter())


def frame_y(axis: Axes, values_K: np.ndarray, log: bool) -> None:
    """Frames data and curves with half their span to spare at most; a band wider than that runs out of the frame."""
    shown_K = values_K[np.isfinite(values_K) & ((values_K > 0) if log else True)]
    if not shown_K.size:
        return
    low, high = np.log([shown_K.min(), shown_K.max()]) if log else (shown_K.min(), shown_K.max())
    now = np.log(np.maximum(axis.get_ylim(), 1e-300)) if log else np.array(axis.get_ylim())
    spare = max(0.5 * (high - low), 1e-3 if log else 1e-9)
    ends = max(now[0], low - spare), min(now[1], high + spare)
    axis.set_ylim(*(np.exp(ends) if log else ends))


def label_of(i: Input) -> str:
    """An input's name and unit, in lines that fit a small panel."""
    return i.name if i.labels else textwrap.fill(f"{i.name}, {i.unit}", _LABEL)


def target_label(law: Law) -> str:
    """The target with its unit; a bare unit is a loss."""
    return textwrap.fill(f"loss, {law.target}" if law.target == "nats/token" else law.target, _LABEL)


def input_named(law: Law, name: str) -> Input:
    """The law's input of that name. Raises ValueError naming the inputs that it has."""
    for i in law.inputs:
        if i.name == name:
            return i
    raise ValueError(f"law {law.name!r} has no input {name!r}; its inputs are {', '.join(law.input_names)}")


def titled(figure: Figure, fit: Fit, *more: str) -> Figure:
    """The figure with a title: law, number of points and groups, and what else is to be known."""
    fitted, held = fit.points.fitted, int(fit.points.held_M.sum())
    count = f"n = {len(fitted)}" + (f" in {fitted.groups} groups" if fitted.groups < len(fitted) else "")
    head = f"{fit.law.name}: {fit.law.formula}"
    return written(figure, head, "; ".join([count + (f", {held} held out" if held else ""), *more]))


def written(figure: Figure, *lines: str) -> Figure:
    """The figure with lines of title, wrapped to its width."""
    width = int(_LETTERS_AN_INCH * figure.get_size_inches()[0])
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, width)), fontsize=8)
    return figure
