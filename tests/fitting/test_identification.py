"""Each refusal, provoked."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting import identification
from scaling.fitting.problem import Minimum, Problem
from scaling.fitting.solver import Expansion
from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.mixture import CMR_RATIO
from scaling.laws.size import CHINCHILLA
from simulated import points_of


def refusals(fit, kind):
    return [refusal for refusal in fit.refusals if refusal.kind == kind]


def sizes_table(sizes=(1e6, 4e6, 2e7, 1e8), noise=1e-3):
    rows = pd.DataFrame([(n, d) for n in sizes for d in np.geomspace(1e8, 1e10, 6)], columns=["N", "D"])
    loss = 1.8 + 480 / rows["N"] ** 0.35 + 2000 / rows["D"] ** 0.37
    return rows.assign(loss=loss * np.exp(noise * np.random.default_rng(0).normal(size=len(rows))))


def test_a_good_design_is_not_refused():
    fit = fitting.fit(CHINCHILLA, sizes_table(), group=None, bootstrap=0)
    assert fit.status == "ok"


def test_two_sizes_cannot_tell_the_size_term_from_the_constant():
    fit = fitting.fit(CHINCHILLA, sizes_table(sizes=(1e6, 1e8)), group=None, bootstrap=0)
    (few,) = refusals(fit, "few_distinct")
    assert few.parameters == ("A", "alpha")
    assert "2 distinct values of N, 3 needed" in few.reason
    (flat,) = refusals(fit, "flat")
    assert {"A", "alpha"} & set(flat.parameters)
    assert fit.status == "refused"


def test_noise_that_drowns_the_curvature_is_a_flat_direction():
    table = pd.DataFrame({"R": np.linspace(0.6, 1.0, 10)})
    loss = 2 - 0.01 * table["R"] ** 0.2 + 0.01 * np.random.default_rng(0).normal(size=10)
    fit = fitting.fit(CMR_RATIO, table.assign(loss=loss), group=None, objective=fitting.least_squares(), bootstrap=0)
    (flat,) = refusals(fit, "flat")
    assert flat.parameters == ("alpha", "s")
    assert flat.reason.startswith("the data leave alpha, s undetermined")


def test_an_exactly_redundant_parameter_is_flat_without_noise():
    law = Law(
        "twice",
        "a*b*x",
        "none",
        (Input("x", "u", distinct=2),),
        "t",
        (Parameter("a", "positive", (0.1, 9.0)), Parameter("b", "positive", (0.1, 9.0))),
        lambda p, x: p["a"] * p["b"] * x["x"],
    )
    x = np.arange(1.0, 9.0)
    fit = fitting.fit(law, pd.DataFrame({"x": x, "loss": 3 * x}), group=None, bootstrap=0)
    (flat,) = refusals(fit, "flat")
    assert flat.parameters == ("a", "b")
    assert "leave a, b undetermined" in flat.reason


def test_a_bound_is_named():
    law = Law(
        "steep",
        "a*x^b",
        "none",
        (Input("x", "u", distinct=2),),
        "t",
        (Parameter("a", "positive", (0.1, 9.0), linear=True), Parameter("b", "real", (-1.0, 1.0), bounds=(-2.0, 2.0))),
        lambda p, x: p["a"] * power(x["x"], p["b"]),
    )
    x = np.arange(1.0, 9.0)
    fit = fitting.fit(law, pd.DataFrame({"x": x, "loss": x**3}), group=None, bootstrap=0)
    (bound,) = refusals(fit, "bound")
    assert bound.parameters == ("b",)
    assert "b ended on its upper bound 2" in bound.reason


def test_few_groups_and_a_single_one():
    table = pd.DataFrame({"R": np.linspace(0.1, 1, 8)})
    table["loss"] = 2 - 0.4 * table["R"] ** 0.2 + 0.001 * np.random.default_rng(0).normal(size=8)
    options = {"objective": fitting.least_squares(), "bootstrap": 30}
    few = fitting.fit(CMR_RATIO, table.assign(run_id=[0, 0, 1, 1, 2, 2, 3, 3]), **options)
    assert "4 groups (runs), of which the fit spends 2." in refusals(few, "few_groups")[0].reason
    assert len(few.draws_BxP) == 30
    single = fitting.fit(CMR_RATIO, table.assign(run_id=0), **options)
    assert len(single.draws_BxP) == 0
    with pytest.raises(ValueError, match="no draws, so no interval; fit with bootstrap > 0 and at least two groups"):
        single.interval({"R": 0.5})


def test_disagreeing_starts_are_said():
    fit = fitting.fit(CHINCHILLA, sizes_table(), group=None, bootstrap=0)
    assert not refusals(fit, "starts_disagree")
    near = _near()
    problem = Problem(_line(), fitting.least_squares(), points_of({"x": np.arange(1.0, 9.0)}, np.ones(8)))
    (refusal,) = identification.refusals(problem, Minimum(np.zeros(1), 0.0, agreement=0.05), near)
    assert refusal.kind == "starts_disagree"
    assert "5% of polished starts" in refusal.reason


def test_inputs_that_move_as_one_are_named():
    table = sizes_table()
    table["D"] = 20 * table["N"] * np.exp(0.2 * np.random.default_rng(1).normal(size=len(table)))
    fit = fitting.fit(CHINCHILLA, table, group=None, bootstrap=0)
    (together,) = refusals(fit, "collinear")
    assert together.reason.startswith("N and D move as one (correlation 0.99")
    assert "vary one at fixed other" in together.reason


def _line():
    return Law(
        "l", "a*x", "none", (Input("x", "u"),), "t", (Parameter("a", "positive", (0.1, 9.0)),), lambda p, x: x["x"]
    )


def _near():
    return Expansion(np.full(8, 0.01), np.ones((1, 8)), np.ones(1), np.ones((1, 1)))
