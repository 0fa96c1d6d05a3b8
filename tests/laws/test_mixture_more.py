"""Rivals and extensions of the D-CPT law, and the forgetting law."""

import jax
import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.laws.mixture import D_CPT, D_CPT_CROSS_DOMAIN, D_CPT_L1, D_CPT_L4, D_CPT_L5, FORGETTING

P = {"E": 1.0, "A": 8.0, "alpha": 0.5, "B": 6.0, "beta": 0.5, "C": 0.3, "gamma": 1.0, "eta": 2.0, "eps": 0.5}
AT = {"N": 16.0, "D": 9.0, "r": 0.25}


predict = jax.jit(lambda law, p, x: law.predict(p, x), static_argnums=0)


def evaluate(law, parameters, **inputs):
    with jax.enable_x64(True):
        return np.asarray(predict(law, parameters, {name: np.float64(value) for name, value in inputs.items()}))


def test_the_forms_by_hand():
    assert evaluate(D_CPT, P, **AT) == pytest.approx(1 + 2 + 2 / 16 + 0.4)
    assert evaluate(D_CPT_L1, P, **AT) == pytest.approx(1 + 2 + 2 + 0.4)
    assert evaluate(D_CPT_L4, P | {"b": 16.0, "c": 81.0}, **AT) == pytest.approx(1 + 2 + 2 * 2 + 0.1)
    assert evaluate(D_CPT_L5, P | {"sigma": 0.2}, **AT) == pytest.approx(1 + 2 + 6 / (9 * 0.4) ** 0.5)
    cross = P | {"F": 0.6, "mu": 0.5, "w2": 3.0}
    assert evaluate(D_CPT_CROSS_DOMAIN, cross, k1=4.0, k2=0.25 / 3 * 47, **AT) == pytest.approx(
        1 + 2 + 2 / 16 + 0.4 + 0.6 / 12**0.5
    )


def test_the_forms_meet_where_they_should():
    """At r = 1 L5 is Chinchilla's; L3 with eta = 0 is L1; every form keeps N, D and r as L3 has them."""
    assert evaluate(D_CPT_L5, P | {"sigma": 0.2}, N=16.0, D=9.0, r=1.0) == pytest.approx(1 + 2 + 2)
    assert evaluate(D_CPT, P | {"eta": 1e-12}, **AT) == pytest.approx(float(evaluate(D_CPT_L1, P, **AT)))
    for law, count in ((D_CPT_L1, 8), (D_CPT_L4, 8), (D_CPT_L5, 6), (D_CPT_CROSS_DOMAIN, 12)):
        assert len(law.parameters) == count
        assert law.input_names[:3] == D_CPT.input_names
        assert "memory" in law.notes
    zero = evaluate(D_CPT_L5, P | {"sigma": 0.2}, N=16.0, D=9.0, r=0.0)
    assert zero == pytest.approx(1 + 2 + 6 / 1.8**0.5)


def test_forgetting_by_hand():
    p = {"A": 0.2, "alpha": 0.5, "beta": 1.0, "B": 300.0, "E": 0.01}
    at = {"U": 2e8, "N": 1e8, "L0": 3.0}
    assert evaluate(FORGETTING, p, p=0.0, **at) == pytest.approx(3.0 + 0.4 + 0.01)
    assert evaluate(FORGETTING, p, p=0.01, **at) == pytest.approx(3.0 + 0.4 / 2 + 0.01)


def grid(**columns):
    return pd.DataFrame(np.stack([x.ravel() for x in np.meshgrid(*columns.values())], axis=1), columns=list(columns))


def test_forgetting_is_recovered_from_an_untuned_table():
    table = grid(N=[4e7, 3e8, 1.2e9], U=[3e6, 1e7, 1e8, 1e9], p=[0.0, 0.005, 0.01, 0.05, 0.1])
    table["L0"] = 2.0 + 30 / table["N"] ** 0.2
    truth = {"A": 0.15, "alpha": 0.4, "beta": 0.3, "B": 250.0, "E": 0.01}
    clean = evaluate(FORGETTING, truth, **table)
    table["loss"] = clean * np.exp(5e-4 * np.random.default_rng(1).normal(size=len(table)))
    fit = fitting.fit(FORGETTING, table, group=None, bootstrap=0)
    np.testing.assert_allclose(fit.predict(table), clean, rtol=1e-3)
    assert fit.parameters["alpha"] == pytest.approx(0.4, abs=0.05)
    assert fit.parameters["B"] == pytest.approx(250, rel=0.4)
    assert fit.agreement > 0.8


def test_a_new_domain_is_predicted_from_its_two_cheap_measurements():
    truth = {"E": 0.8, "A": 60.0, "alpha": 0.3, "B": 300.0, "beta": 0.4, "C": 0.2, "gamma": 0.5, "eta": 0.3, "eps": 0.1}
    truth |= {"F": 0.7, "mu": 0.8, "w2": 2e5}
    measured = [(2.1, 3e-6), (2.6, 1e-6), (1.7, 5e-6), (3.0, 2e-6), (2.3, 4.5e-6), (1.9, 1.2e-6)]
    cells = grid(N=[5e8, 2e9, 4e9], D=[1e9, 1e10], r=[0.1, 0.5, 0.8, 1.0])
    table = pd.concat([cells.assign(k1=k1, k2=k2, name=i) for i, (k1, k2) in enumerate(measured)], ignore_index=True)
    clean = evaluate(D_CPT_CROSS_DOMAIN, truth, **table.drop(columns="name"))
    table["loss"] = clean * np.exp(5e-4 * np.random.default_rng(2).normal(size=len(table)))
    fit = fitting.fit(D_CPT_CROSS_DOMAIN, table, group=None, bootstrap=0, holdout="name == 4")
    assert fit.held_out.points == 24
    assert fit.held_out.relative < 0.002
