"""The formulas against hand-computed values, published figures and second implementations."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.laws.mixture import CMR_CRITICAL, CMR_GENERAL_CHANGE, CMR_RATIO, D_CPT
from scaling.laws.size import CHINCHILLA


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return float(law.predict(parameters, {name: np.float64(value) for name, value in inputs.items()}))


# alpha4, s4, beta3 of the published table; the critical share at T = 100 in percent.
CRITICAL = [
    (0.22524761, 0.26944345, -0.48139982, 29.76),
    (0.7520627, 0.13720245, -1.06581937, 34.89),
    (-2.36384831, -0.15125569, 1.59223649, 41.43),
    (-2.5368197, -0.42071423, 0.84375368, 47.83),
]


@pytest.mark.parametrize(("alpha4", "s4", "beta3", "percent"), CRITICAL)
def test_published_critical_ratios_at_20b_tokens(alpha4, s4, beta3, percent):
    share = evaluate(CMR_CRITICAL, {"alpha4": alpha4, "s4": s4, "beta3": beta3}, T=100.0)
    assert 100 * share == pytest.approx(percent, abs=0.01)


def test_chinchilla_closed_form_optimum():
    p = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
    n, d = 72.25e9, 1.3287e12
    assert 6 * n * d == pytest.approx(5.76e23, rel=1e-4)
    assert evaluate(CHINCHILLA, p, N=n, D=d) == pytest.approx(1.97444, abs=1e-5)


positive = st.floats(0.05, 3.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    p=st.fixed_dictionaries({name: positive for name in D_CPT.parameter_names}),
    n=st.floats(1e6, 1e10),
    d=st.floats(1e6, 1e12),
    r=st.floats(0.0, 1.0),
)
def test_d_cpt_equals_the_formula_and_falls_with_size_and_tokens(p, n, d, r):
    data = p["B"] * r ** p["eta"] / d ** p["beta"]
    wanted = p["E"] + p["A"] / n ** p["alpha"] + data + p["C"] / (r + p["eps"]) ** p["gamma"]
    assert evaluate(D_CPT, p, N=n, D=d, r=r) == pytest.approx(wanted, rel=1e-12)
    assert evaluate(D_CPT, p, N=2 * n, D=d, r=r) <= wanted * (1 + 1e-15)
    assert evaluate(D_CPT, p, N=n, D=2 * d, r=r) <= wanted * (1 + 1e-15)


def test_change_laws_by_hand():
    general = {"alpha2": 0.5, "s2": 0.5, "alpha3": -0.25, "s3": 1.0, "beta2": 0.1}
    assert evaluate(CMR_GENERAL_CHANGE, general, T=4.0) == pytest.approx(0.5 * 2 - 0.25 * 4 + 0.1)
    ratio = {"alpha": -0.426, "s": 0.178, "beta": 1.889}
    assert evaluate(CMR_RATIO, ratio, R=0.25) == pytest.approx(1.889 - 0.426 * math.exp(0.178 * math.log(0.25)))
