"""Figures of finding a rate show what they are given."""

import numpy as np
import pandas as pd
import pytest

from scaling.figures.rates import range_tests, rate_sweep
from scaling.fitting.optimum import sweep_optimum
from scaling.fitting.range_test import growing_rates, range_test


def test_each_range_test_is_drawn_with_the_rate_it_bears_in_a_frame_that_leaves_out_the_explosion() -> None:
    rate_T = growing_rates(1e-4, 1.0, 200, "exponential")
    tests = {f"seed {edge}": range_test(rate_T, 2 + np.exp(-rate_T / 0.003) + rate_T**2 / edge)
             for edge in (0.05, 0.1)}
    figure = range_tests(tests, (0.03, 0.01, 0.09))
    axis, = figure.axes
    marks = [line.get_xdata()[0] for line in axis.get_lines() if line.get_marker() == "o"]
    assert marks == [test.highest for test in tests.values()]
    assert axis.get_xscale() == "log"
    least, start = min(test.loss_T.min() for test in tests.values()), tests["seed 0.1"].smoothed_T[0]
    assert axis.get_ylim()[0] < least < start < axis.get_ylim()[1] < 4 < tests["seed 0.1"].loss_T[-1]
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axis.patches]
    assert np.array(spans) == pytest.approx(np.array([(0.01, 0.09), (0.03 / 25, 0.03 / 10)]))


def test_a_sweep_shows_its_runs_the_quadratic_through_them_and_what_is_not_shown() -> None:
    rates = 1e-3 * 2.0 ** np.arange(7)
    loss = 2 + 0.01 * np.log(rates / 6e-3) ** 2
    table = pd.DataFrame({"lr": np.append(rates, 0.5), "loss": np.append(loss, np.nan)})
    axis, = rate_sweep(sweep_optimum(table, bootstrap=50)).axes
    runs, quadratic, optimum = axis.get_lines()
    np.testing.assert_allclose(runs.get_xdata(), rates)
    np.testing.assert_allclose(quadratic.get_ydata(), 2 + 0.01 * np.log(quadratic.get_xdata() / 6e-3) ** 2, rtol=1e-9)
    assert optimum.get_xdata()[0] == pytest.approx(6e-3)
    assert "1 diverged" in axis.get_xlabel()
