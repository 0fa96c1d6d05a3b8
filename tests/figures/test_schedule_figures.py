"""Figures of schedules show what they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from scaling.figures.schedules import against, by_peak, horizons, predicted, rates


def drawn(axis: Axes, label: str) -> np.ndarray:
    """Ordinates of the line of that name."""
    return next(line.get_ydata() for line in axis.get_lines() if line.get_label() == label)


def test_rates_are_drawn_from_the_first_step_on_and_marked_ones_stand_out() -> None:
    fall = np.linspace(1.0, 0.1, 10)
    axis, other = rates({"low": {"cosine": fall, "law": 2 * fall}, "high": {"law": 3 * fall}}, ["law"]).axes
    np.testing.assert_array_equal(drawn(axis, "law"), 2 * fall)
    np.testing.assert_array_equal(axis.get_lines()[0].get_xdata(), np.arange(1, 11))
    assert [line.get_linewidth() for line in axis.get_lines()] == [0.9, 1.9]
    assert axis.get_ylim()[0] == other.get_ylim()[0] == 0
    assert [axis.get_title(), other.get_title()] == ["low", "high"]


def test_predictions_are_framed_on_what_was_measured() -> None:
    steps = np.arange(10, 60, 10)
    table = pd.DataFrame({"schedule": ["wsd"] * 5 + ["linear"] * 5, "updates": [*steps, *steps[::-1]],
                          "loss": np.tile(3 - steps / 100, 2), "law": 2.0, "mean": 9.0})
    table.loc[5:, "loss"] = 3 - steps[::-1] / 100
    first, second = predicted(table, ["law", "mean"]).axes
    np.testing.assert_allclose(drawn(first, "measured"), drawn(second, "measured"))  # rows in any order
    np.testing.assert_array_equal(drawn(first, "law"), 2.0)
    assert first.get_ylim() == pytest.approx((2.5 - 0.06, 2.9 + 0.04))


def test_runs_their_mean_and_the_optimum_are_drawn_where_there_is_one() -> None:
    rows = pd.DataFrame([(name, peak, loss + shift) for name in ("wsd", "cosine")
                         for peak, loss in ((1e-3, 2.2), (2e-3, 2.0), (4e-3, 2.1)) for shift in (-0.01, 0.01)],
                        columns=["schedule", "peak", "loss"])
    first, second = by_peak(rows, {"cosine": (2.2e-3, 2e-3, 2.5e-3)}).axes
    assert [first.get_title(), second.get_title()] == ["wsd", "cosine"]
    np.testing.assert_allclose(drawn(first, "mean"), [2.2, 2.0, 2.1])
    assert not first.patches
    assert (second.patches[0].get_x(), second.patches[0].get_width()) == pytest.approx((2e-3, 5e-4))
    assert first.get_xscale() == "log"


def test_measured_values_stand_against_the_theory_with_their_names_and_intervals() -> None:
    table = pd.DataFrame({"name": ["a", "b"], "theory": [1.0, 2.0], "value": [3.0, 4.0], "low": [2.5, 3.9],
                          "high": [3.2, 4.4]})
    axis, = against({"both": table}, "theory", "measured", "linear").axes
    assert [text.get_text() for text in axis.texts] == ["a", "b"]
    ends = [segment.get_segments()[0][:, 1].tolist() for segment in axis.collections]
    assert np.array(ends) == pytest.approx(np.array([[2.5, 3.2], [3.9, 4.4]]))


def test_the_line_of_an_exponent_goes_through_the_middle_of_the_optima() -> None:
    steps = np.array([100, 400, 1600])
    table = pd.DataFrame({"schedule": "wsd", "seed": np.repeat([0, 1], 3), "steps": np.tile(steps, 2),
                          "rate": np.concatenate([0.5 / steps, 2 / steps])})
    axis, = horizons(table, -0.5).axes
    np.testing.assert_allclose(drawn(axis, "geometric mean"), 1 / steps)
    np.testing.assert_allclose(drawn(axis, "steps^-0.5"), [1 / 200, 1 / 400, 1 / 800])
