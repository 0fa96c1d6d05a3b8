"""Nominal 95% intervals hold the truth in 92 to 97% of simulated tables.

The studies are those of benchmarks/coverage.py, whole fits from the default starts. With 200 tables a study, a coverage
p is measured with standard error sqrt(p(1-p)/200), 1.9% at 92%; bounds are widened by what the binomial allows.
"""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling import fitting
from scaling.laws.law import Input, Law, Parameter
from scaling.laws.mixture import CMR_RATIO

LOW, HIGH = 0.92, 0.97
TABLES, DRAWS = 200, 128
NAMES = ("chinchilla", "cmr-ratio", "cmr-domain-change", "data-mixing")


@cache
def _benchmark():
    path = Path(__file__).parents[2] / "benchmarks/coverage.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def measured(study):
    benchmark = _benchmark()
    procedures = ("default", "bayesian") if study == "cmr-domain-change" else ("default",)
    return benchmark.measure(benchmark.studies()[study], TABLES, DRAWS, procedures)


def covered(study, kind, procedure="default"):
    rows = measured(study)
    rows = rows[rows["procedure"] == procedure]
    is_new, is_at = (rows["quantity"].str.startswith(start) for start in ("new run", "at "))
    kinds = {"new run": is_new, "prediction": is_at, "parameter": ~is_new & ~is_at}
    return rows.loc[kinds[kind]].set_index("quantity")["covered"]


@pytest.mark.parametrize("kind", ["parameter", "prediction", "new run"])
@pytest.mark.parametrize("study", NAMES)
def test_no_quantity_is_covered_too_seldom(study, kind):
    # Some 30 quantities in all: one in a thousand falls below this by chance at a coverage of 92%.
    least = stats.binom.ppf(1e-3, TABLES, LOW) / TABLES
    found = covered(study, kind)
    assert len(found) >= 2
    assert found.min() >= least, found.to_dict()


@pytest.mark.parametrize("kind", ["parameter", "prediction", "new run"])
def test_coverage_over_the_studies_is_nominal(kind):
    # Studies are independent; quantities of one are not, so the mean has at most the error of one quantity a study.
    mean = float(np.mean([covered(study, kind).mean() for study in NAMES]))
    low, high = (p + sign * 2 * np.sqrt(p * (1 - p) / (TABLES * len(NAMES))) for p, sign in ((LOW, -1), (HIGH, 1)))
    assert low <= mean <= high


def test_without_the_allowance_for_few_runs_least_squares_covers_too_little():
    for kind in ("parameter", "prediction"):
        plain, default = (covered("cmr-domain-change", kind, procedure) for procedure in ("bayesian", "default"))
        assert (plain < default).all()
    assert stats.binomtest(round(plain.mean() * TABLES), TABLES, LOW, alternative="less").pvalue < 0.05


def test_a_new_run_varies_more_than_the_curve():
    law = Law(
        "level", "a + b*x", "none", (Input("x", "u", -1.0, 1.0, distinct=2),), "t",
        (Parameter("a", "real", (-5.0, 5.0), linear=True), Parameter("b", "real", (-5.0, 5.0), linear=True)),
        lambda p, inputs: p["a"] + p["b"] * inputs["x"], scale="raw",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 2000)
    table = pd.DataFrame({"x": x, "loss": 1 + x + rng.normal(scale=0.1, size=2000)})
    fit = fitting.fit(law, table, group=None, bootstrap=200)
    low, high = fit.prediction_interval({"x": np.array([[0.0], [0.5]])})
    assert low.shape == (2, 1)
    np.testing.assert_allclose(high - low, 2 * 1.96 * 0.1, rtol=0.08)
    np.testing.assert_allclose((high + low) / 2, [[1.0], [1.5]], atol=0.015)
    narrow = np.diff(fit.interval({"x": 0.0}), axis=0)
    assert narrow < 0.1 * (high - low).min()
    half = np.diff(fit.prediction_interval({"x": 0.0}, level=0.5), axis=0)
    assert half == pytest.approx(2 * 0.6745 * 0.1, rel=0.08)
    again = fitting.Fit.from_json(fit.to_json(), law=law)
    np.testing.assert_array_equal(again.prediction_interval({"x": 0.5}), fit.prediction_interval({"x": 0.5}))


def test_no_noise_is_told_from_curve_where_the_fit_spends_every_run():
    table = pd.DataFrame({"R": [0.1, 0.3, 1.0], "loss": [2.2, 2.1, 2.0]})
    fit = fitting.fit(CMR_RATIO, table, group=None, bootstrap=10)
    assert "few_groups" in {refusal.kind for refusal in fit.refusals}
    with pytest.raises(ValueError, match=r"groups: 3 runs, of which the fit of 'cmr-ratio' spends 3\.0"):
        fit.prediction_interval({"R": 0.5})
