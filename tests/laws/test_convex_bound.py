"""The convex bound of a schedule against its double sum, its closed forms and the published values."""

import math

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.laws.convex_bound import (
    CONVEX_BOUND,
    best_rate,
    bound,
    constant_bound,
    final_loss,
    with_bound_terms,
    wsd_bound,
)
from scaling.laws.schedule import constant, cosine, wsd


def bound_as_written(lr_T, distance, gradient_T):
    """Theorem 10 with gamma = 1, sums taken anew for every k."""
    square_T = lr_T**2 * gradient_T**2
    first = distance**2 / (2 * lr_T.sum()), square_T.sum() / (2 * lr_T.sum())
    rest = sum(lr_T[k] / lr_T[k + 1 :].sum() * square_T[k:].sum() / lr_T[k:].sum() for k in range(len(lr_T) - 1))
    return first[0], first[1] + rest / 2


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0.1, 3)), min_size=1, max_size=20), st.floats(0.1, 5))
def test_sums_from_the_end_equal_the_double_sum(steps, distance):
    lr_T, gradient_T = np.array(steps).T
    found = bound(lr_T, distance, gradient_T)
    np.testing.assert_allclose((found.distance, found.noise), bound_as_written(lr_T, distance, gradient_T), rtol=1e-10)
    assert found.at(found.best_rate) == pytest.approx(found.best)
    assert found.at(2 * found.best_rate) > found.best
    longer = bound(np.append(lr_T, [0.0, 0.0]), distance, np.append(gradient_T, [1.0, 1.0]))
    assert longer == found


SHAPES = {
    "linear": (1.000, 2.000, wsd(6400, 1.0, 0.0, 0, 6400)),
    "cosine": (0.970, 2.06, cosine(6400, 1.0, 0.0, 0)),
    "wsd 20%": (0.514, 2.16, wsd(6400, 1.0, 0.0, 0, 1280)),
    "wsd 20% 1-sqrt": (0.542, 2.13, wsd(6400, 1.0, 0.0, 0, 1280, "1-sqrt")),
    "wsd 50%": (0.655, 2.03, wsd(6400, 1.0, 0.0, 0, 3200)),
    "constant": (0.31, 3.22, constant(6400, 1.0, 0)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_published_values(name):
    rate, value, lr_T = SHAPES[name]
    found = bound(lr_T)
    assert 80 * found.best_rate == pytest.approx(rate, rel=0.01)
    assert 80 * found.best == pytest.approx(value, rel=0.01)


RATIOS = [(0.05, 0.857), (0.1, 0.775), (0.2, 0.665), (0.3, 0.578), (0.5, 0.422), (0.8, 0.183)]


@pytest.mark.parametrize(("share", "wanted"), RATIOS)
def test_published_ratios_of_best_rates(share, wanted):
    steps = 20_000
    ratio = best_rate(wsd(steps, 1.0, 0.0, 0, steps), wsd(steps, 1.0, 0.0, 0, round(steps * share)), 1.0)
    assert math.log(ratio) == pytest.approx(wanted, abs=2e-3)


def test_closed_forms():
    assert bound(np.ones(500)).distance == pytest.approx(constant_bound(500).distance)
    assert bound(np.ones(500)).noise == pytest.approx(constant_bound(500).noise)
    for steps, start in ((400, 100), (400, 320), (5000, 4000)):
        decay = steps - start
        lr_T = np.append(np.ones(start - 1), 1 - np.arange(decay + 1) / (decay + 1))
        exact = bound(lr_T).best
        assert exact <= wsd_bound(steps, start) < 1.3 * exact
    with pytest.raises(ValueError, match=r"start: step 399 must lie in \[1, 399\)"):
        wsd_bound(400, 399)


def test_a_longer_run_of_one_shape_needs_a_rate_lower_by_the_root():
    short, long = wsd(2000, 1.0, 0.0, 0, 400), wsd(8000, 1.0, 0.0, 0, 1600)
    assert best_rate(long, short, 3e-4) == pytest.approx(1.5e-4, rel=0.03)


def test_the_bound_as_a_law():
    lr_T = wsd(60, 0.3, 0.0, 5, 20)
    table = with_bound_terms(pd.DataFrame({"schedule": "s", "step": [59, 30]}), {"s": lr_T})
    whole, part = bound(lr_T), bound(lr_T[:31])
    np.testing.assert_allclose(table["distance"], [whole.distance, part.distance])
    np.testing.assert_allclose(table["noise"], [whole.noise, part.noise])
    p = {"L0": 2.0, "D2": 3.0, "G2": 0.5}
    with jax.enable_x64(True):
        values = CONVEX_BOUND.predict(p, {name: table[name].to_numpy() for name in ("distance", "noise")})
        assert float(final_loss(p, lr_T)) == pytest.approx(float(values[0]), rel=1e-12)
    assert float(values[0]) == pytest.approx(2 + 3 * whole.distance + 0.5 * whole.noise)


def test_rates_that_are_no_schedule():
    with pytest.raises(ValueError, match=r"shape \(2,\); expected one rate >= 0 a step, some positive"):
        bound(np.zeros(2))
    with pytest.raises(ValueError, match="expected one rate >= 0"):
        bound(np.array([1.0, -0.5]))
