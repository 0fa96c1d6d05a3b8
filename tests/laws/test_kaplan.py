"""Kaplan's laws, critical batch and exponents, and the laws with a floor, against limits and published figures."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from scaling import fitting
from scaling.laws.critical_batch import (
    CRITICAL_BATCH,
    CRITICAL_BATCH_PUBLISHED,
    SIZE_STEPS_BATCH,
    STEPS_FOR_BATCH,
    minimal_compute,
    minimal_steps,
)
from scaling.laws.kaplan import (
    EARLY_STOP,
    HENIGHAN_COMPUTE,
    HENIGHAN_PUBLISHED,
    HENIGHAN_SIZE,
    KAPLAN_COMPUTE,
    KAPLAN_DATA,
    KAPLAN_PUBLISHED,
    KAPLAN_SIZE,
    KAPLAN_SIZE_DATA,
    KAPLAN_SIZE_STEPS,
    compute_exponents,
)

STEPS = {"Nc": 6.5e13, "aN": 0.077, "Sc": 2.1e3, "aS": 0.76}
CURVE = STEPS | {"Bstar": 1.7e8, "aB": 0.205}


def at(law, parameters, **inputs):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(law.predict)(parameters, {name: np.float64(x) for name, x in inputs.items()}))


def test_one_variable_at_a_time():
    assert at(KAPLAN_SIZE, KAPLAN_PUBLISHED["kaplan-size"], N=8.8e13) == pytest.approx(1)
    assert at(KAPLAN_SIZE, KAPLAN_PUBLISHED["kaplan-size"], N=8.8e9) == pytest.approx(10 ** (4 * 0.076))
    assert at(KAPLAN_DATA, KAPLAN_PUBLISHED["kaplan-data"], D=5.4e10) == pytest.approx(10 ** (3 * 0.095))
    assert at(KAPLAN_COMPUTE, KAPLAN_PUBLISHED["kaplan-compute"], C=1e4) == pytest.approx(1.7, abs=0.03)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=st.floats(1e5, 1e11), d=st.floats(1e7, 1e12))
def test_joint_law_has_both_limits_and_depends_on_one_ratio_beyond_them(n, d):
    p = KAPLAN_PUBLISHED["kaplan-size-data"]
    full = at(KAPLAN_SIZE_DATA, p, N=n, D=1e40)
    assert full == pytest.approx((p["Nc"] / n) ** p["aN"], rel=1e-6)
    assert at(KAPLAN_SIZE_DATA, p, N=1e45, D=d) == pytest.approx((p["Dc"] / d) ** p["aD"], rel=1e-6)
    penalty = at(KAPLAN_SIZE_DATA, p, N=n, D=d) / full
    again = at(KAPLAN_SIZE_DATA, p, N=10 * n, D=d * 10 ** (p["aN"] / p["aD"])) / at(
        KAPLAN_SIZE_DATA, p, N=10 * n, D=1e40
    )
    assert penalty == pytest.approx(again, rel=1e-6)
    enough = at(KAPLAN_SIZE_DATA, p, N=n, D=5e3 * n**0.74) / full
    assert 1 < enough < 1.025


def test_compute_optimal_exponents_are_those_of_the_sheet():
    found = compute_exponents(0.076, 0.76, 0.21)
    assert found.loss == pytest.approx(0.0520, abs=5e-5)
    assert (found.size, found.batch, found.steps) == pytest.approx((0.684, 0.2476, 0.0684), abs=5e-4)
    assert found.size + found.batch + found.steps == pytest.approx(1)
    with pytest.raises(ValueError, match="must be > 0"):
        compute_exponents(0.076, -0.76, 0.21)


def test_early_stop_and_critical_batch_by_hand():
    assert at(EARLY_STOP, {"Sc": 2.1e3, "aS": 0.5}, excess=0.1) == pytest.approx(2.1e5)
    assert at(CRITICAL_BATCH, CRITICAL_BATCH_PUBLISHED, L=1.0) == pytest.approx(2e8)
    assert at(CRITICAL_BATCH, {"Bstar": 8e8, "aB": 0.25}, L=2.0) == pytest.approx(5e7)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(batch=st.floats(1e3, 1e8), critical=st.floats(1e3, 1e8))
def test_steps_trade_against_tokens(batch, critical):
    steps = at(STEPS_FOR_BATCH, {"Smin": 1e4, "Bcrit": critical}, B=batch)
    tokens = steps * batch
    assert (steps / 1e4 - 1) * (tokens / (1e4 * critical) - 1) == pytest.approx(1, rel=1e-6)
    assert minimal_steps(steps, batch, critical) == pytest.approx(1e4)
    assert minimal_compute(6e9 * tokens, batch, critical) == pytest.approx(6e9 * 1e4 * critical)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.floats(1e5, 1e11), s=st.floats(10, 1e7), b=st.floats(1e3, 1e9), scale=st.floats(1e-3, 1e3))
def test_loss_of_size_steps_and_batch_solves_its_equation(n, s, b, scale):
    p = CURVE | {"Bstar": CURVE["Bstar"] * scale}

    def gap(loss):
        steps = p["Sc"] * (1 + p["Bstar"] / loss ** (1 / p["aB"]) / b) / s
        return loss - (p["Nc"] / n) ** p["aN"] - steps ** p["aS"]

    root = brentq(gap, 1e-3, 1e9, xtol=1e-14, rtol=1e-14, maxiter=500)
    assert at(SIZE_STEPS_BATCH, p, N=n, S=s, B=b) == pytest.approx(root, rel=1e-10)


def test_loss_of_size_steps_and_batch_has_its_limit_and_its_derivatives():
    point = {"N": np.float64(1e8), "S": np.float64(5e4)}
    limit = at(KAPLAN_SIZE_STEPS, STEPS, N=1e8, Smin=5e4)
    assert at(SIZE_STEPS_BATCH, CURVE, B=1e18, **point) == pytest.approx(limit, rel=1e-9)
    assert at(SIZE_STEPS_BATCH, CURVE, B=1e4, **point) > limit
    with jax.enable_x64(True):
        inputs = point | {"B": np.float64(1e5)}
        slopes = jax.jacfwd(lambda p: SIZE_STEPS_BATCH.predict(p, inputs))(
            {name: np.float64(value) for name, value in CURVE.items()}
        )
    for name, value in CURVE.items():
        ends = [at(SIZE_STEPS_BATCH, CURVE | {name: value * (1 + e)}, **inputs) for e in (-1e-5, 1e-5)]
        assert float(slopes[name]) == pytest.approx(float((ends[1] - ends[0]) / (2e-5 * value)), rel=1e-6)


def test_laws_with_a_floor_and_their_published_constants():
    for domain, laws in HENIGHAN_PUBLISHED.items():
        for law, key, scale in ((HENIGHAN_SIZE, "size", "N0"), (HENIGHAN_COMPUTE, "compute", "C0")):
            floor, x0, a = laws[key]
            p = {"Linf": floor, scale: x0, "a": a}
            assert at(law, p, **{scale[0]: x0}) == pytest.approx(floor + 1), domain
            assert at(law, p, **{scale[0]: 1e3 * x0}) == pytest.approx(floor + 1e3**-a), domain
    c0, b = HENIGHAN_PUBLISHED["language"]["optimum"]
    assert (1 / c0) ** b == pytest.approx(1.3e9, rel=0.05)  # Kaplan's optimal size for one PF-day


def test_a_scale_far_from_the_data_is_found():
    """Nc lies five decades above the largest model; no start knows that."""
    truth, sizes = KAPLAN_PUBLISHED["kaplan-size"], np.geomspace(1e4, 1.5e9, 16)
    noise = np.random.default_rng(0).normal(scale=0.003, size=16)
    table = pd.DataFrame({"N": sizes, "loss": (truth["Nc"] / sizes) ** truth["aN"] * np.exp(noise)})
    fit = fitting.fit(KAPLAN_SIZE, table, group=None, objective=fitting.least_squares("log"), bootstrap=0)
    slope, intercept = np.polyfit(np.log(sizes), np.log(table["loss"]), 1)
    assert fit.agreement > 0.4
    assert fit.parameters["aN"] == pytest.approx(-slope, rel=1e-6)
    assert np.log(fit.parameters["Nc"]) == pytest.approx(-intercept / slope, rel=1e-6)
    assert fit.parameters["aN"] == pytest.approx(truth["aN"], rel=0.02)
