"""Laws with parameters held, and one law for many groups."""

import jax
import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.laws.catalogue import law_named
from scaling.laws.derived import pooled, with_fixed
from scaling.laws.mixture import CMR_RATIO
from scaling.laws.size import CHINCHILLA

TRUTH = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


def chinchilla_table(noise=1e-3, **changed):
    p = TRUTH | changed
    rows = pd.DataFrame([(n, d) for n in (1e6, 4e6, 2e7, 1e8) for d in np.geomspace(1e8, 1e10, 6)], columns=["N", "D"])
    loss = p["E"] + p["A"] / rows["N"] ** p["alpha"] + p["B"] / rows["D"] ** p["beta"]
    return rows.assign(loss=loss * np.exp(noise * np.random.default_rng(0).normal(size=len(rows))))


@pytest.mark.parametrize("fixed", [{"alpha": 0.35}, {"B": 2000.0, "beta": 0.37}])
def test_a_law_with_fixed_parameters_recovers_the_rest_and_predicts_as_the_whole(fixed):
    law = with_fixed(CHINCHILLA, fixed)
    fit = fitting.fit(law, chinchilla_table(noise=0.0), group=None, bootstrap=0)
    for name, value in fit.parameters.items():
        assert value == pytest.approx(TRUTH[name], rel=1e-4)
    with jax.enable_x64(True):
        whole = CHINCHILLA.predict(fit.parameters | fixed, {"N": np.float64(3e7), "D": np.float64(1e9)})
    assert float(fit.predict({"N": 3e7, "D": 1e9})) == pytest.approx(float(whole), rel=1e-14)
    assert fitting.Fit.from_json(fit.to_json()).law is law


def test_what_cannot_be_fixed_is_named():
    with pytest.raises(ValueError, match="law 'chinchilla' has no parameter 'gamma'; it has E, A, B, alpha, beta"):
        with_fixed(CHINCHILLA, {"gamma": 1.0})
    with pytest.raises(ValueError, match=r"alpha = -1 must lie in \[0.001, 10\]"):
        with_fixed(CHINCHILLA, {"alpha": -1.0})
    with pytest.raises(ValueError, match="every parameter of law 'cmr-ratio' is fixed"):
        with_fixed(CMR_RATIO, {"alpha": 1.0, "s": 1.0, "beta": 1.0})


def test_a_pooled_law_shares_what_it_should_and_equals_separate_fits_when_it_shares_nothing():
    tables = {"prose": chinchilla_table(), "code": chinchilla_table(E=0.9, A=300.0, alpha=0.35, B=900.0)}
    both = pd.concat([table.assign(domain=name) for name, table in tables.items()], ignore_index=True)
    apart = fitting.fit(pooled(CHINCHILLA, "domain", tables, ()), both, group=None, bootstrap=0)
    alone = {name: fitting.fit(CHINCHILLA, table, group=None, bootstrap=0) for name, table in tables.items()}
    assert apart.value == pytest.approx(sum(fit.value for fit in alone.values()), rel=1e-6)
    shared = fitting.fit(pooled(CHINCHILLA, "domain", tables, ("alpha", "beta")), both, group=None, bootstrap=0)
    assert len(shared.parameters) == 8
    assert shared.parameters["alpha"] == pytest.approx(0.35, rel=0.05)
    assert shared.parameters["E[code]"] == pytest.approx(0.9, rel=0.1)
    assert shared.value >= apart.value
    at = {"N": 5e8, "D": 5e10, "domain": ["prose", "code"]}
    again = fitting.Fit.from_json(shared.to_json())
    np.testing.assert_array_equal(again.predict(at), shared.predict(at))
    np.testing.assert_allclose(
        shared.predict(at), [fit.predict({"N": 5e8, "D": 5e10}) for fit in alone.values()], rtol=0.01
    )


def test_equal_arguments_give_the_same_law():
    law = pooled(CHINCHILLA, "domain", ["a", "b"], ["alpha"])
    assert law_named(**law.record) is law
    nested = with_fixed(law, {"E[a]": 1.7})
    assert law_named(**nested.record) is nested
    assert nested.parameter_names[0] == "A[a]"


def test_bad_groups_and_labels_are_named():
    with pytest.raises(ValueError, match="at least two different groups of column 'domain'"):
        pooled(CHINCHILLA, "domain", ["a", "a"], ())
    with pytest.raises(ValueError, match="shared: law 'chinchilla' has no parameter 'gamma'"):
        pooled(CHINCHILLA, "domain", ["a", "b"], ("gamma",))
    table = chinchilla_table().assign(domain="a")
    table.loc[3, "domain"] = "c"
    with pytest.raises(ValueError, match=r"column 'domain', row 3: 'c' is none of a, b: it is input 'domain'"):
        fitting.fit(pooled(CHINCHILLA, "domain", ["a", "b"], ()), table, group=None)
