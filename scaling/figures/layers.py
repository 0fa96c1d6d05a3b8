"""Figures of diagnostics by layer: one quantity of every parameter or module against step."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from scaling.figures.axes import frame_y, grid, set_log
from scaling.figures.style import GREY, ramp

OUTSIDE = -1  # the block of parameters outside blocks
BEFORE = 0.5  # where an evaluation before any update stands on a logarithmic axis of steps


def by_layer(diagnostics: pd.DataFrame, quantity: str, label: str, log: bool) -> Figure:
    """A panel a kind of parameter or module, a colour a block, dark next to the input, grey outside blocks: mean and
    range over runs of the quantity at every evaluation, `log`: on a logarithmic axis.

    `diagnostics`: rows of the store's table (run_id, step, name, value), of which those named QUANTITY.PATH are drawn;
    block_2/attention/query/kernel is the kind attention/query/kernel of block 2. Step 0 stands at 1/2. Undefined
    values (NaN) are left out. Raises ValueError where no row has the quantity.
    """
    rows = diagnostics[diagnostics.name.str.startswith(f"{quantity}.") & diagnostics.value.notna()]
    if rows.empty:
        known = sorted({name.partition(".")[0] for name in diagnostics.name})
        raise ValueError(f"quantity = {quantity!r}: expected one that the diagnostics hold; use one of "
                         f"{', '.join(known)}")
    places = [_place(name.removeprefix(f"{quantity}.")) for name in rows.name]
    rows = rows.assign(block=[block for block, _ in places], kind=[kind for _, kind in places])
    blocks = np.unique(rows.block[rows.block >= 0])
    colours = dict(zip(blocks.tolist(), ramp(blocks), strict=True))
    if (rows.block < 0).any():
        colours[OUTSIDE] = to_rgba(GREY)
    kinds = [*rows.kind[rows.block >= 0].unique(), *rows.kind[rows.block < 0].unique()]
    figure, axes = grid(len(kinds), columns=4, width=2.7, height=2.3)
    for axis, kind in zip(axes, kinds, strict=True):
        part = rows[rows.kind == kind]
        for block, line in part.groupby("block"):
            values = line.groupby("step").value
            steps, colour = np.maximum(values.mean().index, BEFORE), colours[int(block)]
            axis.plot(steps, values.mean(), color=colour, linewidth=1.3, marker=".", markersize=4)
            axis.fill_between(steps, values.min(), values.max(), color=colour, alpha=0.2, linewidth=0)
        axis.set_title(kind, fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        for which in ("x", "y") if log else ("x",):
            set_log(axis, which)
        frame_y(axis, part.value.to_numpy(), log)
    for axis in axes[::min(len(axes), 4) if len(axes) != 4 else 2]:
        axis.set_ylabel(label, fontsize=8)
    for block, colour in colours.items():
        axes[0].plot([], [], color=colour, label="outside blocks" if block == OUTSIDE else f"block {block}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    return figure


def _place(path: str) -> tuple[int, str]:
    """(block, kind) of a path, (OUTSIDE, path) outside blocks; a block as a whole is of the kind "block"."""
    found = re.fullmatch(r"block_(\d+)(?:/(.+))?", path)
    return (int(found[1]), found[2] or "block") if found else (OUTSIDE, path)
