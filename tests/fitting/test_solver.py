"""The solver against SciPy, and what weights, padding and bounds mean to it."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares as scipy_least_squares

from scaling.fitting import coordinates, huber, least_squares, solver, starts
from scaling.fitting.problem import Problem
from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.mixture import CMR_RATIO
from simulated import points_of

SHARE = np.linspace(0.1, 1.0, 12)
LOSS = 1.9 - 0.4 * SHARE**0.2 + 0.004 * np.sin(37 * np.arange(12.0))


def solve(share, loss, weights=None, objective=None, law=CMR_RATIO, steps=300):
    objective = objective or huber(0.003, "raw")
    problem = Problem(law, objective, points_of({law.input_names[0]: share}, loss, weights))
    with jax.enable_x64(True):
        start = starts.screened(law, objective, problem.data, problem.weights()[0], seed=0)
    ends, values = problem.minimise(start, None, steps, 1e-13)
    return problem.natural(ends)[np.argmin(values)], values


def test_agrees_with_scipy_on_a_robust_fit():
    best, values = solve(SHARE, LOSS)
    scipy = scipy_least_squares(
        lambda p: p[0] * SHARE ** p[1] + p[2] - LOSS,
        (-0.3, 0.3, 1.8),
        loss="huber",
        f_scale=0.003,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert values.min() == pytest.approx(scipy.cost, rel=1e-9)
    np.testing.assert_allclose(best[0] * SHARE ** best[1] + best[2], LOSS + scipy.fun, atol=1e-6)
    assert np.mean(values[:32] <= values.min() * (1 + 1e-6)) > 0.9  # the half of the starts that screened best


def test_a_duplicate_is_a_weight_of_two_and_a_missing_point_a_weight_of_zero():
    weights = np.array([2.0, 1, 1, 0, 1, 1, 3, 1, 1, 1, 0, 1])
    once, value = solve(SHARE, LOSS, weights)
    repeated, repeated_value = solve(np.repeat(SHARE, weights.astype(int)), np.repeat(LOSS, weights.astype(int)))
    assert value.min() == pytest.approx(repeated_value.min(), rel=1e-9)
    np.testing.assert_allclose(once, repeated, rtol=1e-4)


def test_lanes_with_their_own_data_equal_separate_fits():
    law, objective = CMR_RATIO, least_squares()
    shares = np.stack([SHARE, SHARE**1.5, SHARE**0.8])
    data = solver.Data({"R": shares}, np.tile(LOSS, (3, 1)), np.ones((3, 12)), np.zeros((3, 1)))
    start = np.tile([-0.4, 0.2, 1.9], (3, 1))
    _, together = solver.minimise(law, "raw", objective.delta, data, start, np.ones((3, 12)), 300, 1e-13, own_data=True)
    alone = [solve(share, LOSS, objective=objective)[1].min() for share in shares]
    np.testing.assert_allclose(together, alone, rtol=1e-8)


def test_a_lane_ends_where_it_would_alone_whatever_lanes_take_their_turns_before_it():
    rng = np.random.default_rng(0)
    problem = Problem(CMR_RATIO, huber(0.003, "raw"), points_of({"R": SHARE}, LOSS))
    start = np.array([-0.4, 0.2, 1.9]) + rng.normal(scale=[0.5, 0.5, 0.2], size=(71, 3))
    weights = rng.exponential(size=(71, 12))
    u, value = problem.minimise(start, weights, steps=40, tolerance=1e-10)
    order = rng.permutation(71)
    shuffled_u, shuffled_value = problem.minimise(start[order], weights[order], steps=40, tolerance=1e-10)
    np.testing.assert_array_equal(shuffled_u, u[order])
    np.testing.assert_array_equal(shuffled_value, value[order])
    for lane in (0, 7, 8, 63, 64, 70):
        alone_u, alone_value = problem.minimise(start[[lane]], weights[[lane]], steps=40, tolerance=1e-10)
        np.testing.assert_array_equal(alone_u[0], u[lane])
        assert alone_value == value[lane]
    short = problem.minimise(start, weights, steps=4, tolerance=1e-10)[1]
    assert (short >= value).all()
    assert np.mean(short > value) > 0.5, "the limit of steps is each lane's own"


def test_a_parameter_stops_at_its_bound_and_the_others_still_settle():
    law = Law(
        "bounded",
        "a*x^b",
        "none",
        (Input("x", "u"),),
        "t",
        (
            Parameter("a", "positive", (0.1, 10.0), linear=True),
            Parameter("b", "positive", (0.1, 0.4), bounds=(0.1, 0.5)),
        ),
        lambda p, x: p["a"] * power(x["x"], p["b"]),
    )
    x = np.geomspace(0.5, 4.0, 9)
    best, _ = solve(x, 2 * x**0.9, objective=least_squares(), law=law)
    assert best[1] == pytest.approx(0.5, abs=1e-12)
    assert best[0] == pytest.approx(np.sum(2 * x**0.9 * x**0.5) / np.sum(x), rel=1e-6)


def test_no_finite_start_is_said():
    law = Law(
        "n",
        "-a*x",
        "none",
        (Input("x", "u"),),
        "t",
        (Parameter("a", "positive", (1.0, 2.0)),),
        lambda p, x: -p["a"] * x["x"],
    )
    with pytest.raises(FloatingPointError, match=r"no start gives a finite objective.*needs scale='raw'"):
        solve(np.array([1.0, 2.0]), np.array([1.0, 2.0]), objective=huber(), law=law)


def test_padding_changes_nothing_and_few_sizes_are_used():
    assert [solver.pad(n) for n in (1, 64, 65, 97, 129, 768, 769)] == [64, 64, 96, 128, 192, 768, 1024]
    assert all(n <= solver.pad(n) <= 1.5 * n + 1 for n in range(64, 3000))
    short, long = (
        solve(np.resize(SHARE, n), np.resize(LOSS, n), weights=np.repeat([1.0, 0.0], [12, n - 12])) for n in (12, 65)
    )
    assert short[1].min() == pytest.approx(long[1].min(), rel=1e-9)


def test_coordinates_invert():
    law = CMR_RATIO
    parameters = pd.Series({"alpha": -0.4, "s": 0.2, "beta": 1.9}).to_numpy()
    reference = np.array([0.7])
    with jax.enable_x64(True):
        u = coordinates.from_parameters(law, parameters, reference)
        np.testing.assert_allclose(coordinates.natural(law, u, reference), parameters, rtol=1e-14)
    assert u[0] == pytest.approx(-0.4 * np.exp(0.2 * 0.7))
