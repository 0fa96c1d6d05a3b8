"""The figure of diagnostics by layer shows what it is given: values by kind, block and step; refusals."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scaling.figures.layers import by_layer
from scaling.figures.style import GREY, ramp

NAMES = ("rotation.block_0/query/kernel", "rotation.block_1/query/kernel", "rotation.block_1", "rotation.embedding",
         "gradient_norm.block_0/query/kernel", "gradient_norm")


def table() -> pd.DataFrame:
    return pd.DataFrame([{"run_id": run_id, "step": step, "name": name, "value": (place + 1) * (step + 1) * factor}
                         for run_id, factor in (("a", 1.0), ("b", 3.0)) for step in (0, 1, 10)
                         for place, name in enumerate(NAMES)])


def test_every_value_stands_in_the_panel_of_its_kind_in_the_colour_of_its_block() -> None:
    figure = by_layer(table(), "rotation", "1 - cos", log=True)
    dark, light = map(to_hex, ramp(np.arange(2)))
    lines = {axis.get_title(): {to_hex(line.get_color()): (line.get_xdata().tolist(), line.get_ydata().tolist())
                                for line in axis.lines if len(line.get_xdata())} for axis in figure.axes}
    steps, means = [0.5, 1, 10], np.array([2.0, 4.0, 22.0])  # over runs that stand at 1 and 3 times the step + 1
    assert lines == {"query/kernel": {dark: (steps, means.tolist()), light: (steps, (2 * means).tolist())},
                     "block": {light: (steps, (3 * means).tolist())},
                     "embedding": {GREY: (steps, (4 * means).tolist())}}
    low, high = (f(figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    assert (low, high) == (1, 33)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["block 0", "block 1", "outside blocks"]
    assert {axis.get_yscale() for axis in figure.axes} == {axis.get_xscale() for axis in figure.axes} == {"log"}


def test_undefined_values_are_left_out() -> None:
    rows = table()
    rows.loc[rows.name == "rotation.embedding", "value"] = np.nan
    figure = by_layer(rows, "rotation", "1 - cos", log=False)
    assert [axis.get_title() for axis in figure.axes] == ["query/kernel", "block"]
    assert {axis.get_yscale() for axis in figure.axes} == {"linear"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["block 0", "block 1"]


def test_a_quantity_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantity = 'rotatoin': .* use one of gradient_norm, rotation"):
        by_layer(table(), "rotatoin", "", log=False)
