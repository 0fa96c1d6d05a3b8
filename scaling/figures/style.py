"""One look for all figures, drawn without a display."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GREY, ACCENT, SECOND = "#222222", "#8a8a8a", "#c2410c", "#1d4ed8"
DPI = 150


def panels(count: int, width: float = 3.3, height: float = 3.0, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A row of axes."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, sharey=share_y, squeeze=False)[0].tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=8)
    return figure, axes


def ramp(values: np.ndarray) -> list[tuple[float, float, float, float]]:
    """One colour a value, from dark to light in rank order."""
    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.88, len(values))]


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
