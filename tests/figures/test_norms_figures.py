"""What the figures of normalization draw, read back from their axes."""

import pandas as pd
import pytest

from scaling.figures.norms import by_depth, drift


def test_each_name_has_a_line_over_depths_and_one_colour_in_all_panels() -> None:
    loss = pd.DataFrame({"name": ["pre", "pre", "peri", "peri"], "depth": [8, 2, 2, 8], "value": [2.0, 3.0, 2.9, 1.5],
                         "low": [1.9, 2.8, 2.8, 1.4], "high": [2.2, 3.1, 3.0, 1.7]})
    gain = pd.DataFrame({"name": "peri", "depth": [2, 8], "value": [0.1, -0.5], "low": [0.0, -0.6], "high": [0.2, 0.0]})
    figure = by_depth({"loss": loss, "gain": gain})
    first, second = figure.axes
    lines = {bars.get_label(): bars.lines[0] for bars in first.containers}
    assert lines["pre"].get_ydata().tolist() == [3.0, 2.0]  # by depth, not in the table's order
    assert [text.get_text() for text in first.get_xticklabels()] == ["2", "8"]
    assert [round(x) for x in lines["peri"].get_xdata()] == [0, 1]
    ends = first.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in ends] == [pytest.approx([2.8, 3.1]), pytest.approx([1.9, 2.2])]
    only, = second.containers
    assert only.lines[0].get_color() == lines["peri"].get_color() != lines["pre"].get_color()
    zero = [line for line in second.get_lines() if list(line.get_ydata()) == [0, 0]]
    assert len(zero) == 1, "0 is marked where values lie on both sides of it"
    assert (first.get_ylabel(), second.get_ylabel()) == ("loss", "gain")


def test_drift_is_the_largest_size_over_seeds_and_leaves_out_equal_losses() -> None:
    rows = pd.DataFrame({"seed": [0, 1, 0, 1, 0, 1], "split": "train", "step": [1, 1, 2, 2, 3, 3],
                         "difference": [0.0, 0.0, 1e-15, -3e-15, 2e-14, 1e-14]})
    axis, = drift(rows, 1e-9).axes
    line, bound = axis.get_lines()
    assert line.get_xdata().tolist() == [2, 3]
    assert line.get_ydata().tolist() == [3e-15, 2e-14]
    assert bound.get_ydata()[0] == 1e-9
    assert axis.get_yscale() == "log"
