"""Profiles against closed forms, SciPy and brute force."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from scaling.fitting import fit_points, huber, least_squares
from scaling.fitting.profile import profile
from scaling.laws.law import Input, Law, Parameter
from scaling.laws.mixture import CMR_RATIO
from simulated import points_of

REAL = (-5.0, 5.0)


def law_of(predict, *parameters):
    return Law("test", "-", "none", (Input("x", "u"),), "t", parameters, predict, scale="raw")


LINE = law_of(
    lambda p, x: p["a"] * x["x"] + p["b"],
    Parameter("a", "real", REAL, linear=True),
    Parameter("b", "real", REAL, linear=True),
)
X = np.linspace(0.5, 4.0, 9)
Y = 0.7 * X - 1.0 + 0.1 * np.sin(37 * np.arange(9.0))


@pytest.fixture(scope="module")
def line_fit():
    return fit_points(LINE, least_squares(), points_of({"x": X}, Y), bootstrap=0)


def test_least_squares_gives_the_exact_t_interval_of_a_slope_and_the_exact_parabola(line_fit):
    p = profile(line_fit, "a")
    regression = stats.linregress(X, Y)
    half = stats.t.ppf(0.975, 7) * regression.stderr
    assert (p.low, p.high) == pytest.approx((regression.slope - half, regression.slope + half), rel=1e-6)
    residual = Y - regression.slope * X - regression.intercept
    spread = np.sum((X - X.mean()) ** 2)
    np.testing.assert_allclose(
        p.values_K, np.sum(residual**2) / 2 + spread * (p.grid_K - regression.slope) ** 2 / 2, rtol=1e-6
    )
    np.testing.assert_allclose(p.parameters_KxP[:, 1], Y.mean() - p.grid_K * X.mean(), atol=1e-5)
    assert p.open_ends == (False, False)
    assert p.refusals == ()


def test_a_predicted_value_has_the_exact_interval_of_the_mean_response(line_fit):
    p = profile(line_fit, lambda p: p["a"] * 10.0 + p["b"], level=0.9)
    design = np.stack([X, np.ones(9)], axis=1)
    (a, b), rss, *_ = np.linalg.lstsq(design, Y)
    at = np.array([10.0, 1.0])
    half = stats.t.ppf(0.95, 7) * np.sqrt(rss[0] / 7 * at @ np.linalg.inv(design.T @ design) @ at)
    assert (p.low, p.high) == pytest.approx((10 * a + b - half, 10 * a + b + half), rel=1e-6)


def test_rows_repeated_within_a_run_add_nothing():
    """Five copies of each row as one group: the interval is that of the single rows, noise taken row by row."""
    groups = np.repeat(np.arange(9), 5)
    points = points_of({"x": np.repeat(X, 5)}, np.repeat(Y, 5), groups=groups)
    clustered = profile(fit_points(LINE, least_squares(), points, bootstrap=0), "a")
    design = np.stack([X, np.ones(9)], axis=1)
    residual = Y - design @ np.linalg.lstsq(design, Y)[0]
    bread = np.linalg.inv(design.T @ design)
    leverage = np.einsum("mp,pq,mq->m", design, bread, design)
    freedom = 9 - 9 * np.sum(leverage**2) / 2
    variance = (bread @ (design.T * residual**2) @ design @ bread)[0, 0] * 9 / freedom
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert clustered.high - clustered.low == pytest.approx(2 * half, rel=1e-6)


def test_a_robust_profile_agrees_with_scipy_refits():
    share = np.linspace(0.1, 1.0, 12)
    loss = 1.9 - 0.4 * share**0.2 + 0.004 * np.sin(37 * np.arange(12.0))
    fit = fit_points(CMR_RATIO, huber(0.003, "raw"), points_of({"R": share}, loss), bootstrap=0)
    grid = np.array([0.1, 0.15, 0.3, 0.4])
    p = profile(fit, "s", grid)
    for s in grid:
        refit = optimize.least_squares(
            lambda q, s=s: q[0] * share**s + q[1] - loss,
            (-0.4, 1.9),
            loss="huber",
            f_scale=0.003,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        assert p.values_K[np.argmin(abs(p.grid_K - s))] == pytest.approx(refit.cost, rel=1e-6)
    # The centred coefficient as the law writes it: alpha is not a coordinate of the fit.
    free = profile(fit, "alpha", np.array([-0.6, -0.3]))
    refit = optimize.least_squares(
        lambda q: -0.6 * share ** q[0] + q[1] - loss,
        (0.2, 1.9),
        loss="huber",
        f_scale=0.003,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert free.values_K[0] == pytest.approx(refit.cost, rel=1e-6)
    assert free.parameters_KxP[0] == pytest.approx([-0.6, *refit.x], rel=1e-4)


SATURATING = law_of(
    lambda p, x: p["b"] * p["R"] * -jnp.expm1(-x["x"] / p["R"]),
    Parameter("b", "positive", (0.1, 10.0)),
    Parameter("R", "positive", (0.5, 100.0), bounds=(1e-2, 1e3)),
)


def test_an_end_that_the_data_do_not_bound_is_open():
    """Far from saturation the curve is a line: the data say that R is large, never how large."""
    fit = fit_points(SATURATING, least_squares(), points_of({"x": X}, X * (1 + 0.01 * np.cos(5 * X))), bootstrap=0)
    p = profile(fit, "R")
    assert p.open_ends == (False, True)
    assert 10 < p.low < 1000
    assert [r.kind for r in p.refusals] == ["flat"]
    assert "R is not bounded above" in p.refusals[0].reason
    assert "no parameters within their bounds go further" in p.refusals[0].reason
    assert p.grid_K[np.isfinite(p.values_K)].max() == pytest.approx(1e3, rel=1e-3)
    record = json.loads(p.to_json())
    assert record["high"] is None
    assert record["low"] == p.low
    assert len(record["parameters"]["R"]) == len(record["grid_K"])


TWO_BASINS = law_of(
    lambda p, x: jnp.where(
        x["x"] == 1, 3 * (p["t"] ** 2 - 1), jnp.where(x["x"] == 2, p["t"] - p["s"], 0.3 * (p["s"] - 1))
    ),
    Parameter("t", "real", (-2.0, 2.0)),
    Parameter("s", "real", (-2.0, 2.0)),
)


def test_the_curve_is_the_lower_envelope_of_two_basins():
    """t sits at +1 or -1; far below s = 0 the second is better, though a path from the estimate keeps to the first."""
    kind = np.tile([1.0, 2.0, 3.0], 4)
    noise = 0.05 * np.sin(11 * np.arange(12.0))
    fit = fit_points(TWO_BASINS, least_squares(), points_of({"x": kind}, noise), bootstrap=0)
    assert fit.parameters["t"] == pytest.approx(1, abs=0.05)
    grid = np.array([-2.0, -1.0, -0.5, 0.5, 1.5])
    p = profile(fit, "s", grid)
    t = np.linspace(-2, 2, 40_001)[:, None]
    for s in grid:
        predicted = np.where(kind == 1, 3 * (t**2 - 1), np.where(kind == 2, t - s, 0.3 * (s - 1)))
        least = np.min(np.sum((predicted - noise) ** 2, axis=1) / 2)
        index = int(np.argmin(abs(p.grid_K - s)))
        assert p.values_K[index] == pytest.approx(least, rel=1e-6)
        assert np.sign(p.parameters_KxP[index, 0]) == np.sign(s)


def test_a_lower_minimum_than_the_fits_is_reported(line_fit):
    worse = replace(line_fit, parameters={"a": 0.8, "b": -1.2}, value=line_fit.value * 2)
    p = profile(worse, "a")
    assert [r.kind for r in p.refusals] == ["starts_disagree"]
    assert p.value == pytest.approx(line_fit.value, rel=1e-3)


def test_no_more_groups_than_parameters_give_a_curve_without_ends(line_fit):
    points = points_of({"x": X}, Y, groups=np.arange(9) // 5)
    p = profile(fit_points(LINE, least_squares(), points, bootstrap=0), "a", np.array([0.5, 0.9]))
    assert np.isnan([p.low, p.high, p.threshold]).all()
    assert np.isfinite(p.values_K).all()
    assert [r.kind for r in p.refusals] == ["few_groups"]


def test_what_cannot_be_profiled_is_refused(line_fit):
    with pytest.raises(ValueError, match=r"no parameter 'c'; it has a, b; or pass a function"):
        profile(line_fit, "c")
    with pytest.raises(ValueError, match=r"level: 95 must lie in \(0, 1\)"):
        profile(line_fit, "a", level=95)
    with pytest.raises(ValueError, match=r"must hold finite values of a on both sides of its estimate 0\."):
        profile(line_fit, "a", np.array([2.0, 3.0]))
    with pytest.raises(ValueError, match=r"must be one finite number at the estimate"):
        profile(line_fit, lambda p: jnp.log(p["b"]))
