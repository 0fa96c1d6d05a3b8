"""The sandwich and what a fit spends, against closed forms."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting.solver import Expansion
from scaling.fitting.uncertainty import covariance, sandwich, slopes, spent
from scaling.laws.law import Input, Law, Parameter
from simulated import points_of

RNG = np.random.default_rng(0)


def test_least_squares_sandwich_of_a_mean_is_the_variance_of_the_mean():
    residual = RNG.normal(size=50)
    residual -= residual.mean()
    covariance = sandwich(np.ones((1, 50)), residual, np.ones(50), np.arange(50), np.inf)
    assert covariance[0, 0] == pytest.approx(residual.var(ddof=1) / 50)


def test_points_of_one_group_count_once():
    residual = RNG.normal(size=20)
    residual -= residual.mean()
    single = sandwich(np.ones((1, 20)), residual, np.ones(20), np.arange(20), np.inf)
    tripled = sandwich(np.ones((1, 60)), np.repeat(residual, 3), np.ones(60), np.repeat(np.arange(20), 3), np.inf)
    np.testing.assert_allclose(tripled, single, rtol=1e-12)


def test_narrow_huber_gives_the_variance_of_a_median():
    residual = RNG.normal(size=20_000)
    covariance = sandwich(np.ones((1, 20_000)), residual, np.ones(20_000), np.arange(20_000), 1e-4)
    assert covariance[0, 0] == pytest.approx(np.pi / 2 / 20_000, rel=0.1)


def test_wide_huber_has_slope_one_inside():
    np.testing.assert_array_equal(slopes(np.array([0.1, -0.2, 3.0, 0.0]), 1.0), [1, 1, 0, 1])


def test_residuals_that_all_lie_away_from_zero_still_have_a_slope():
    residual = np.concatenate([np.linspace(0.9, 1.1, 50), -np.linspace(0.9, 1.1, 50)])
    slope = slopes(residual, 1e-3)
    assert (slope > 0).sum() == 10  # sqrt(100), five a side
    np.testing.assert_allclose(slope[slope > 0], 1e-3 / np.sort(np.abs(residual))[9])


def test_one_group_has_no_covariance():
    assert np.isnan(sandwich(np.ones((2, 5)), np.ones(5), np.ones(5), np.zeros(5, int), 1.0)).all()


FACTORIAL = np.array([[1, a, b, c] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1) for _ in range(2)]).T


def near(jacobian, residual):
    return Expansion(residual, jacobian, np.ones(len(jacobian)), np.eye(len(jacobian)))


def test_a_fit_spends_its_parameters_on_points_and_one_group_on_copies():
    ones = np.ones(16)
    assert spent(FACTORIAL, ones, np.arange(16)) == pytest.approx(4)  # equal leverage, one point a group
    curve = np.stack([np.ones(5), np.arange(5.0), np.arange(5.0) ** 2])
    assert spent(np.tile(curve, 6), np.ones(30), np.repeat(np.arange(6), 5)) == pytest.approx(1)
    assert spent(np.eye(4), np.ones(4), np.arange(4)) == pytest.approx(4)  # each point determines its own parameter
    rng = np.random.default_rng(0)
    jacobian, group, weight = rng.normal(size=(3, 24)), np.repeat(np.arange(8), 3), rng.uniform(0.5, 2, 24)
    scaled = np.sqrt(weight) * jacobian
    inverse = np.linalg.inv(scaled @ scaled.T)
    parts = [scaled[:, group == g] @ scaled[:, group == g].T @ inverse for g in range(8)]
    wanted = 8 * sum(np.trace(part @ part) for part in parts) / 3
    assert spent(jacobian, weight, group) == pytest.approx(wanted)
    mixed = rng.normal(size=(3, 3)) @ jacobian  # other coordinates of the same law
    assert spent(mixed, weight, group) == pytest.approx(wanted)


def test_covariance_is_unbiased_where_leverage_is_equal():
    rng = np.random.default_rng(0)
    hat = FACTORIAL.T @ np.linalg.inv(FACTORIAL @ FACTORIAL.T) @ FACTORIAL
    diagonals = []
    for _ in range(400):
        noise = rng.normal(size=16)
        points = points_of({"x": np.arange(16.0)}, noise)
        diagonals.append(np.diagonal(covariance(near(FACTORIAL, noise - hat @ noise), points, np.inf)))
    # Var of each coefficient is 1/16; without the factor 16/12 the mean would be 0.75 of it.
    np.testing.assert_allclose(np.mean(diagonals, axis=0), 1 / 16, rtol=0.06)


def test_a_fit_that_spends_every_group_has_no_covariance():
    points = points_of({"x": np.arange(3.0)}, np.ones(3))
    assert np.isnan(covariance(near(np.eye(3), np.zeros(3)), points, np.inf)).all()


def test_known_standard_errors_weigh_the_points_and_are_not_believed():
    rng = np.random.default_rng(0)
    x, sigma = rng.uniform(1, 3, 40), np.geomspace(0.01, 0.2, 40)
    y = 2 * x + sigma * rng.normal(size=40)
    law = Law(
        "slope", "a*x", "none", (Input("x", "u", distinct=2),), "t", (Parameter("a", "positive", (0.1, 9.0)),),
        lambda p, inputs: p["a"] * inputs["x"], scale="raw",
    )  # fmt: skip
    table = pd.DataFrame({"x": x, "loss": y, "sigma": sigma})
    options = {"group": None, "objective": fitting.least_squares(), "bootstrap": 300}
    fit = fitting.fit(law, table, error="sigma", **options)
    information = np.sum(x**2 / sigma**2)
    slope = np.sum(x * y / sigma**2) / information
    assert fit.parameters["a"] == pytest.approx(slope, rel=1e-9)
    share = x**2 / sigma**2 / information
    score = x * (y - slope * x) / sigma**2
    wanted = np.sqrt(np.sum(score**2)) / information * np.sqrt(40 / (40 - 40 * np.sum(share**2)))
    assert fit.standard_errors["a"] == pytest.approx(wanted, rel=1e-6)
    assert fit.standard_errors["a"] == pytest.approx(information**-0.5, rel=0.35)  # the errors are right here
    low, high = fit.parameter_interval()["a"]
    assert (high - low) / 3.92 == pytest.approx(information**-0.5, rel=0.35)
    doubled = fitting.fit(law, table.assign(sigma=3 * sigma), error="sigma", **options)
    assert doubled.standard_errors["a"] == pytest.approx(fit.standard_errors["a"], rel=1e-6)
    plain = fitting.fit(law, table, **options)
    assert plain.standard_errors["a"] > 2 * fit.standard_errors["a"]
