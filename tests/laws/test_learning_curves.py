"""Learning-curve laws: inverter, limits, second implementations, published errors, the default fit on short curves."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import huber

from experiments.reference import AbsentDataError, reference_data
from scaling import fitting
from scaling.laws.catalogue import law_named
from scaling.laws.learning_curves import ACCURACY_CURVE, BNSL_ADDITION_PUBLISHED, M1, M2, M3, M4, bnsl


def evaluate(law, parameters, x):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(law.predict)(parameters, {"x": np.asarray(x, float)}))


def published(name):
    try:
        return pd.read_csv(reference_data() / name)
    except AbsentDataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def translation():
    """The five translation curves by model."""
    table = published("revisiting_nmt_lm.csv").rename(columns={"seen_examples": "x"})
    return dict(list(table[table["domain"] == "NMT"].groupby("model")))


@pytest.fixture(scope="module")
def addition():
    return published("bnsl_addition.csv").rename(columns={"train_examples": "x", "loss_nats": "loss"})


def held_out_error(fit, curve):
    rows = curve[curve["training"] == 0]
    return float(np.sqrt(np.mean(np.log(fit.predict(rows) / rows["loss"]) ** 2)))


M4_VALUES = {1: 0.9697419571, 10: 0.8784997980, 100: 0.6716558455, 1e3: 0.4349699076, 1e6: 0.1368978535}
M4_AT = {"beta": 5.0, "c": 0.35, "e_inf": 0.1, "e_0": 1.0, "alpha": 0.5}


def test_m4_is_inverted_to_nine_digits():
    np.testing.assert_allclose(evaluate(M4, M4_AT, list(M4_VALUES)), list(M4_VALUES.values()), rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    beta=st.floats(1e-3, 1e3), c=st.floats(0.05, 2), e_inf=st.floats(0, 0.5), span=st.floats(0.1, 50),
    alpha=st.floats(1e-3, 20), x=st.floats(1e-2, 1e6),
)  # fmt: skip
def test_m4_satisfies_its_equation_and_falls(beta, c, e_inf, span, alpha, x):
    p = {"beta": beta, "c": c, "e_inf": e_inf, "e_0": e_inf + span, "alpha": alpha}
    y, later = evaluate(M4, p, [x, 2 * x])
    assert e_inf <= later <= y <= e_inf + span
    excess, room = (y - e_inf) / span, (e_inf + span - y) / span
    if min(excess, room) > 1e-6:  # nearer to an end, y itself no longer holds the digits
        left = np.log(y - e_inf) - alpha * np.log(e_inf + span - y)
        assert left == pytest.approx(np.log(beta) - c * np.log(x), abs=1e-8 * (1 + alpha))


def test_m4_derivatives_by_finite_differences():
    x = np.array([1.0, 30.0, 1e4])
    with jax.enable_x64(True):
        at = {name: np.float64(value) for name, value in M4_AT.items()}
        slopes = jax.jit(jax.jacfwd(lambda p: M4.predict(p, {"x": x})))(at)
    for name, value in M4_AT.items():
        step = 1e-6 * value
        up, down = (evaluate(M4, M4_AT | {name: value + sign * step}, x) for sign in (1, -1))
        np.testing.assert_allclose(slopes[name], (up - down) / (2 * step), rtol=1e-6, atol=1e-9)


def test_m4_tends_to_m2_and_has_its_published_expansion():
    x = np.array([1e3, 1e5])
    p = M4_AT | {"alpha": 1e-6}
    np.testing.assert_allclose(evaluate(M4, p, x), evaluate(M2, p, x), rtol=1e-5)
    at = M4_AT | {"alpha": 2.0}
    term = at["beta"] * 1e9 ** -at["c"]
    expansion = 0.1 + 0.9**2 * term - 2 * 0.9**3 * term**2
    assert evaluate(M4, at, 1e9) == pytest.approx(expansion, abs=20 * term**3)


def test_forms_by_hand():
    assert evaluate(M1, {"beta": 2.0, "c": 0.5}, 16.0) == pytest.approx(0.5)
    assert evaluate(M2, {"e_inf": 0.25, "beta": 2.0, "c": 0.5}, 16.0) == pytest.approx(0.75)
    assert evaluate(M3, {"beta": 2.0, "gamma": 3 / 16, "c": 0.5}, 16.0) == pytest.approx(1.0)
    assert evaluate(ACCURACY_CURVE, {"c": 0.97, "a": 2.0, "b": 0.5}, 400.0) == pytest.approx(0.87)


def test_broken_law_is_the_product_and_survives_sharp_breaks():
    p = {"a": 0.2, "b": 3.0, "c0": 0.1, "c1": 0.5, "d1": 50.0, "f1": 0.3, "c2": -0.2, "d2": 4e3, "f2": 1.5}
    x = np.geomspace(1, 1e6, 13)
    first = (1 + (x / 50) ** (1 / 0.3)) ** (-0.5 * 0.3)
    second = (1 + (x / 4e3) ** (1 / 1.5)) ** (0.2 * 1.5)
    np.testing.assert_allclose(evaluate(bnsl(2), p, x), 0.2 + 3 * x**-0.1 * first * second, rtol=1e-12)
    sharp = {"a": 0.0, "b": 1.0, "c0": 0.0, "c1": 0.5, "d1": 10.0, "f1": 1e-3}
    np.testing.assert_allclose(evaluate(bnsl(1), sharp, [1.0, 1e6]), [1.0, (1e5) ** -0.5], rtol=1e-12)


def test_the_broken_family_counts_its_breaks():
    assert bnsl(1) is law_named("bnsl", breaks=1)
    assert law_named(**bnsl(2).record) is bnsl(2)
    assert [len(bnsl(n).parameters) for n in range(3)] == [3, 6, 9]
    for breaks in (-1, 1.5, "1"):
        with pytest.raises(ValueError, match=f"breaks: {breaks!r} must be a whole number from 0 to 100"):
            bnsl(breaks)


def test_published_broken_law_of_addition(addition):
    error = np.log(evaluate(bnsl(1), BNSL_ADDITION_PUBLISHED, addition["x"]) / addition["loss"])
    train = addition["training"] == 1
    assert np.sqrt(np.mean(error[train] ** 2)) == pytest.approx(5.985e-4, rel=1e-3)
    assert np.sqrt(np.mean(error[~train] ** 2)) == pytest.approx(0.010916, rel=1e-3)


def test_default_fit_finds_the_break_of_addition(addition):
    fit = fitting.fit(bnsl(1), addition, group=None, bootstrap=0, holdout="training == 0")
    assert held_out_error(fit, addition) < 0.0125
    assert fit.parameters["d1"] == pytest.approx(612.6, rel=2e-3)
    train = addition[addition["training"] == 1]
    ours, theirs = (
        huber(1e-3, np.log(evaluate(bnsl(1), p, train["x"]) / train["loss"].to_numpy())).sum()
        for p in (fit.parameters, BNSL_ADDITION_PUBLISHED)
    )
    assert ours < theirs


M1_PUBLISHED = {
    "6 Enc, 6 Dec": 0.262,
    "28 Enc, 6 Dec": 0.171,
    "6 Enc, 28 Dec": 0.234,
    "Dec-only": 0.252,
    "TEnc-LSTM": 0.190,
}


def test_m1_extrapolates_as_published_and_is_the_line_in_logs(translation):
    for model, curve in translation.items():
        fit = fitting.fit(
            M1,
            curve,
            group=None,
            bootstrap=0,
            objective=fitting.least_squares("log"),
            holdout=(curve["training"] == 0).to_numpy(),
        )
        train = curve[curve["training"] == 1]
        slope, intercept = np.polyfit(np.log(train["x"]), np.log(train["loss"]), 1)
        assert fit.parameters == pytest.approx({"beta": np.exp(intercept), "c": -slope}, rel=1e-7)
        assert held_out_error(fit, curve) == pytest.approx(M1_PUBLISHED[model], abs=1e-3)


def test_default_m4_on_the_short_translation_curves(translation):
    # Published, in the order of the models: 1.0e-2 (first row suspect), 1.3e-2, 3.0e-2, 1.0e-2, 1.2e-2.
    errors = []
    for curve in translation.values():
        fit = fitting.fit(M4, curve, group=None, bootstrap=0, holdout=(curve["training"] == 0).to_numpy())
        errors.append(held_out_error(fit, curve))
    assert np.mean(errors) < np.mean([1.0e-2, 1.3e-2, 3.0e-2, 1.0e-2, 1.2e-2])
