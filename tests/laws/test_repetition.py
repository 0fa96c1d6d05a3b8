"""The data-constrained law: published values, limits, a second implementation, its optimum."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import huber

from experiments.reference import AbsentDataError, reference_data
from scaling import fitting
from scaling.laws.derived import with_fixed
from scaling.laws.repetition import CHINCHILLA_TIED, DATA_CONSTRAINED, effective, optimal_parameters
from scaling.laws.repetition import DATA_CONSTRAINED_PUBLISHED as PUBLISHED


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return np.asarray(
            jax.jit(law.predict)(parameters, {name: np.asarray(value, float) for name, value in inputs.items()})
        )


def second(n, d, u, p=PUBLISHED):
    """The law as the sheet writes it, in plain numpy."""
    g = (p["A"] / p["B"]) ** (1 / (2 * p["alpha"]))
    u = np.minimum(u, d)
    u_n = np.minimum(n, g**2 * u)
    n_eff = u_n + u_n * p["Q_N"] * (1 - np.exp(-np.maximum(n / u_n - 1, 0) / p["Q_N"]))
    d_eff = u + u * p["Q_D"] * (1 - np.exp(-np.maximum(d / u - 1, 0) / p["Q_D"]))
    return p["E"] + p["A"] / n_eff ** p["alpha"] + p["B"] / d_eff ** p["alpha"]


@pytest.fixture(scope="module")
def runs():
    """The 182 runs of the published fit."""
    try:
        table = pd.read_csv(reference_data() / "datablations_c4.csv")
    except AbsentDataError as error:
        pytest.skip(str(error))
    names = {"N_params": "N", "D_tokens": "D", "U_unique_tokens": "U", "val_loss_c4": "loss"}
    return table[table["in_published_fit"] == 1].rename(columns=names)


@pytest.mark.parametrize(("n", "d", "loss"), [(6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)])
def test_published_values(n, d, loss):
    assert evaluate(DATA_CONSTRAINED, PUBLISHED, N=n, D=d, U=25e9) == pytest.approx(loss, rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.floats(1e6, 1e12), d=st.floats(1e6, 1e13), u=st.floats(1e6, 1e13))
def test_equals_a_second_implementation(n, d, u):
    assert evaluate(DATA_CONSTRAINED, PUBLISHED, N=n, D=d, U=u) == pytest.approx(second(n, d, u), rel=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seen=st.floats(0.01, 1e4), scale=st.floats(0.1, 100))
def test_repeats_are_worth_less_and_less(seen, scale):
    with jax.enable_x64(True):
        worth, more = (float(effective(np.float64(s), 1.0, scale)) for s in (seen, 1.1 * seen))
    assert worth <= min(seen, 1 + scale) * (1 + 1e-12)
    assert worth <= more
    if seen <= 1:
        assert worth == pytest.approx(seen, rel=1e-14)


def test_it_is_the_tied_law_where_nothing_repeats_and_no_model_is_too_large():
    with jax.enable_x64(True):
        n = float(optimal_parameters(PUBLISHED, 20e9))
    assert 20e9 / n == pytest.approx(19.6, abs=0.05)
    for size in (0.5 * n, n):
        tied = evaluate(CHINCHILLA_TIED, PUBLISHED, N=size, D=20e9)
        assert evaluate(DATA_CONSTRAINED, PUBLISHED, N=size, D=20e9, U=20e9) == pytest.approx(float(tied), rel=1e-14)
    assert evaluate(DATA_CONSTRAINED, PUBLISHED, N=2 * n, D=20e9, U=20e9) > evaluate(
        CHINCHILLA_TIED, PUBLISHED, N=2 * n, D=20e9
    )


def test_derivatives_are_finite_where_the_minimum_switches():
    x = {"N": np.array([1e8, 1e9]), "D": np.array([1e9, 1e9]), "U": np.array([1e9, 2e9])}
    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacfwd(lambda p: DATA_CONSTRAINED.predict(p, x)))(
            {k: np.float64(v) for k, v in PUBLISHED.items()}
        )
    assert all(np.isfinite(slope).all() for slope in slopes.values())


def test_optimum_of_1e22_flops_with_25b_unique_tokens():
    compute = 1e22

    def loss(log_tokens):
        tokens = np.exp(log_tokens)
        return float(evaluate(DATA_CONSTRAINED, PUBLISHED, N=compute / 6 / tokens, D=tokens, U=25e9))

    best = minimize_scalar(loss, bounds=(np.log(1e10), np.log(1e13)), options={"xatol": 1e-9})
    tokens = float(np.exp(best.x))
    assert tokens == pytest.approx(237.3e9, rel=5e-4)
    assert tokens / 25e9 == pytest.approx(9.49, abs=0.005)
    assert compute / 6 / tokens == pytest.approx(7.02e9, rel=1e-3)


def test_published_objective_and_fit_of_the_decay(runs):
    predicted = evaluate(DATA_CONSTRAINED, PUBLISHED, **runs[["N", "D", "U"]])
    loss = runs["loss"].to_numpy()
    assert huber(1e-3, np.log(predicted / loss)).sum() == pytest.approx(0.015825936, rel=1e-6)
    spread = np.sum((loss - loss.mean()) ** 2)
    assert 1 - np.sum((predicted - loss) ** 2) / spread == pytest.approx(0.7722, abs=5e-5)
    fresh = evaluate(CHINCHILLA_TIED, PUBLISHED, **runs[["N", "D"]])
    assert 1 - np.sum((fresh - loss) ** 2) / spread == pytest.approx(0.4452, abs=5e-5)
    base = {name: PUBLISHED[name] for name in ("E", "A", "B", "alpha")}
    fit = fitting.fit(with_fixed(DATA_CONSTRAINED, base), runs, group=None, bootstrap=0)
    assert fit.value <= 0.015807
    assert ("flat", ("Q_D",)) in [(refusal.kind, refusal.parameters) for refusal in fit.refusals]
