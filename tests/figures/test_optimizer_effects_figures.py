"""Figures of what an optimizer does show what they are given: means, ranges, failures, shares."""

import numpy as np
import pandas as pd

from scaling.figures.optimizer_effects import loss_against, loss_by_rate, over_steps, shares
from scaling.figures.style import ACCENT


def runs() -> pd.DataFrame:
    rows = [(method, peak, seed, 2.0 + shift + 0.1 * seed + peak, method == "b" and peak == 1.0 and seed == 1)
            for method, shift in (("b", 0.5), ("a", 0.0)) for peak in (0.1, 1.0) for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["method", "peak", "seed", "loss", "failed"])


def named_lines(axis) -> dict[str, tuple[list, list]]:
    return {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axis.lines
            if not line.get_label().startswith("_")}


def test_losses_stand_at_their_rates_with_a_cross_where_a_run_failed() -> None:
    figure = loss_by_rate({"one": runs(), "two": runs().assign(failed=False)})
    first, second = figure.axes
    lines = named_lines(first)
    assert list(lines) == ["b", "a"]
    np.testing.assert_allclose(lines["b"], ([0.1, 1.0], [2.65, 3.55]))
    np.testing.assert_allclose(lines["a"], ([0.1, 1.0], [2.15, 3.05]))
    assert (first.get_title(), second.get_title()) == ("one", "two")
    crosses = [[line.get_xydata().tolist() for line in axis.lines
                if line.get_color() == ACCENT and len(line.get_xdata())] for axis in figure.axes]
    assert crosses == [[[[1.0, 3.55]]], []]
    low, high = (f(first.collections[1].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    np.testing.assert_allclose((low, high), (2.1, 3.1))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


def test_every_run_stands_at_its_quantity() -> None:
    axis, = loss_against(runs().assign(rotation=np.arange(8) / 8), "rotation", "rotation", log=False).axes
    lines = named_lines(axis)
    np.testing.assert_allclose(lines["a"], ([0.5, 0.625, 0.75, 0.875], [2.1, 2.2, 3.0, 3.1]))
    assert (axis.get_xlabel(), axis.get_xscale()) == ("rotation", "linear")


def test_quantities_over_steps_stand_in_their_panels_with_one_colour_a_method() -> None:
    rows = pd.DataFrame([(panel, method, step, (step + 1) * factor) for panel, methods in (("p", "ab"), ("q", "b"))
                         for method in methods for step in (0, 10) for factor in (1.0, 3.0)],
                        columns=["panel", "method", "step", "value"])
    figure = over_steps(rows, "norm", log=True)
    first, second = figure.axes
    assert list(named_lines(first)) == ["a", "b"]
    assert named_lines(second) == {"b": ([0, 10], [2.0, 22.0])}
    assert second.lines[0].get_color() == first.lines[1].get_color()
    assert {axis.get_yscale() for axis in figure.axes} == {"log"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_panels_share_colours_and_the_legend_names_what_any_of_them_has() -> None:
    rows = runs()
    figure = loss_by_rate({"one": rows[rows.method == "b"], "two": rows})
    first, second = ({line.get_label(): line.get_color() for line in axis.lines} for axis in figure.axes)
    assert first["b"] == second["b"] != second["a"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


def test_shares_stand_with_their_intervals_and_counts() -> None:
    rows = pd.DataFrame({"name": ["none", "half"], "value": [0.0, 0.5], "low": [0.0, 0.2], "high": [0.3, 0.8],
                         "n": [9, 8]})
    axis, = shares(rows, "share").axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["none (n = 9)", "half (n = 8)"]
    bars = axis.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 0] for segment in bars], [[0.0, 0.3], [0.2, 0.8]])
