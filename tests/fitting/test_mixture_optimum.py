"""Best mixtures and sizes against SciPy, closed forms and vertices."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import LinearConstraint, minimize

from scaling import fitting
from scaling.fitting.mixture_optimum import best_bimix, best_mixture
from scaling.laws import mixing
from scaling.laws.capacity import capacity_noise

DOMAINS = ("code", "prose", "web")
LAW = mixing.data_mixing(DOMAINS)
TRUTH = {
    "code": {"c": 1.0, "t[code]": -5.0, "t[prose]": 0.4, "t[web]": 0.1},
    "prose": {"c": 2.5, "t[code]": 0.5, "t[prose]": -3.0, "t[web]": -0.5},
    "web": {"c": 2.8, "t[code]": 0.3, "t[prose]": -0.4, "t[web]": -2.0},
}
WEIGHTS = {"code": 0.2, "prose": 0.3, "web": 0.5}


def losses(p, share_MxK):
    return p["c"] + np.exp(sum(p[f"t[{d}]"] * share_MxK[..., i] for i, d in enumerate(DOMAINS)))


def total(parameters, share_K):
    return sum(WEIGHTS[target] * losses(p, share_K) for target, p in parameters.items())


def by_scipy(function, count, start=None):
    simplex = LinearConstraint(np.ones(count), 1, 1)
    start = np.full(count, 1 / count) if start is None else start
    options = {"ftol": 1e-15, "maxiter": 500}
    return minimize(function, start, bounds=[(0, 1)] * count, constraints=simplex, method="SLSQP", options=options)


@pytest.fixture(scope="module")
def fits():
    """One fit a target, to the same 40 runs with the same seed."""
    rng = np.random.default_rng(0)
    share_MxK = rng.dirichlet(np.ones(3), size=40)
    table = pd.DataFrame(share_MxK, columns=list(DOMAINS)).assign(run_id=np.arange(40))
    for target, p in TRUTH.items():
        table[f"loss_{target}"] = losses(p, share_MxK) * np.exp(0.003 * rng.normal(size=40))
    return {target: fitting.fit(LAW, table, target=f"loss_{target}", bootstrap=60) for target in TRUTH}


def test_the_best_mixture_is_that_of_scipy_for_the_estimate_and_a_draw(fits):
    best = best_mixture(fits, WEIGHTS)
    estimate = by_scipy(lambda r: total({t: f.parameters for t, f in fits.items()}, r), 3)
    assert best.loss.value == pytest.approx(estimate.fun, abs=1e-8)
    np.testing.assert_allclose([best.shares[d].value for d in DOMAINS], estimate.x, atol=2e-4)
    drawn = {t: dict(zip(LAW.parameter_names, f.draws_BxP[7], strict=True)) for t, f in fits.items()}
    assert best.loss.draws_B[7] == pytest.approx(by_scipy(lambda r: total(drawn, r), 3).fun, abs=1e-8)
    truth = by_scipy(lambda r: total(TRUTH, r), 3)
    for i, d in enumerate(DOMAINS):
        assert best.shares[d].low - 0.02 < truth.x[i] < best.shares[d].high + 0.02
        assert best.shares[d].refusal is None
    draws_BxK = np.stack([best.shares[d].draws_B for d in DOMAINS], axis=1)
    np.testing.assert_allclose(draws_BxK.sum(axis=1), 1.0)
    assert "code: 0." in str(best)


def test_one_target_is_best_served_by_a_vertex(fits):
    best = best_mixture({"code": fits["code"]}, {"code": 1.0})
    assert best.shares["code"].value == pytest.approx(1.0, abs=1e-6)
    p = fits["code"].parameters
    assert best.loss.value == pytest.approx(p["c"] + np.exp(p["t[code]"]), abs=1e-7)
    assert best.shares["code"].refusal.kind == "extrapolated"
    assert "the best share of code, 1, is outside the shares that the runs tried" in best.shares["code"].refusal.reason


def test_fits_and_weights_that_do_not_match_are_refused(fits):
    with pytest.raises(ValueError, match=r"weights: of \['code'\], expected exactly those of the fits"):
        best_mixture(fits, {"code": 1.0})
    with pytest.raises(ValueError, match="must be finite, none negative, and not all 0"):
        best_mixture(fits, WEIGHTS | {"web": -1.0})
    with pytest.raises(ValueError, match=r"inputs: \['N'\] given, but law 'data-mixing' needs exactly \[\]"):
        best_mixture(fits, WEIGHTS, {"N": 1e9})
    fewer = replace(fits["web"], draws_BxP=fits["web"].draws_BxP[:10])
    with pytest.raises(ValueError, match=r"with \[10, 60\] bootstrap draws; .* so that draws pair"):
        best_mixture(fits | {"web": fewer}, WEIGHTS)
    with pytest.raises(ValueError, match="expected fits of 'bimix'"):
        best_bimix(fits, WEIGHTS, 100.0)


@pytest.fixture(scope="module")
def bimix():
    """A fit of BiMix, to be given other parameters."""
    table = pd.DataFrame({"r": np.tile([0.1, 0.2, 0.4, 0.6, 0.8], 4), "S": np.repeat([1e3, 2e3, 4e3, 8e3], 5)})
    table["loss"] = table["r"] ** -0.05 * (100 / table["S"] ** 0.5 + 2)
    fit = fitting.fit(mixing.BIMIX, table, group=None, bootstrap=0)
    assert fit.parameters == pytest.approx({"alpha": 0.05, "B": 100.0, "beta": 0.5, "C": 2.0}, rel=1e-4)
    return fit


def test_bimix_optimum_is_that_of_scipy(bimix):
    values = {"code": (0.1, 80.0, 0.5, 1.0), "prose": (0.03, 100.0, 0.4, 2.5), "web": (0.05, 120.0, 0.6, 2.8)}
    names = ("alpha", "B", "beta", "C")
    fits = {d: replace(bimix, parameters=dict(zip(names, v, strict=True))) for d, v in values.items()}
    best = best_bimix(fits, WEIGHTS, 5e3)

    def summed(share_K):
        terms = zip(values.items(), share_K, strict=True)
        return sum(WEIGHTS[d] * r**-a * (b / 5e3**beta + c) for (d, (a, b, beta, c)), r in terms)

    wanted = by_scipy(summed, 3)
    np.testing.assert_allclose([best.shares[d].value for d in values], wanted.x, atol=1e-5)
    assert best.loss.value == pytest.approx(wanted.fun, abs=1e-10)
    assert sum(decision.value for decision in best.shares.values()) == pytest.approx(1, abs=1e-12)
    assert best.loss.refusal.kind == "few_groups"
    for steps, reach in ((9e5, 100.0), (9, 100.0), (1.7e4, 2.0)):  # fitted: 1e3 to 8e3
        far = best_bimix(fits, WEIGHTS, steps, reach=reach)
        assert {d.refusal.kind for d in (*far.shares.values(), far.loss)} == {"extrapolated"}
        assert f"more than {reach:g} times beyond the fitted range [1000, 8000]" in str(far.loss.refusal)


def test_a_law_with_labelled_rows_serves_every_label(bimix):
    two = ("code", "web")
    law = capacity_noise(two)
    p = {"c[code]": 3.0, "b[code]": 0.3, "A[code]": 1.0, "a[code]": 0.3, "E[code]": 0.5, "H": 1.0}
    p |= {"c[web]": 5.0, "b[web]": 0.2, "A[web]": 2.0, "a[web]": 0.2, "E[web]": 1.0}
    fit = replace(
        bimix, law=law, parameters={name: p[name] for name in law.parameter_names}, draws_BxP=np.zeros((0, 11))
    )
    tried = replace(bimix.points, inputs={name: np.linspace(0.05, 1, 20) for name in law.input_names})
    fit = replace(fit, points=tried)
    best = best_mixture({"code": fit, "web": fit}, {"code": 0.4, "web": 0.6}, {"N": 100.0, "D": 30.0})
    grid = np.linspace(0.05, 0.95, 1801)
    inputs = {"code": grid, "web": 1 - grid, "N": np.full(1801, 100.0), "D": np.full(1801, 30.0)}
    each = {d: fit.predict(inputs | {"domain": np.full(1801, d)}) for d in two}
    summed = 0.4 * each["code"] + 0.6 * each["web"]
    assert best.shares["code"].value == pytest.approx(grid[np.argmin(summed)], abs=1e-3)
    assert best.loss.value == pytest.approx(summed.min(), abs=1e-6)
    far = best_mixture({"code": fit, "web": fit}, {"code": 0.4, "web": 0.6}, {"N": 1e15, "D": 30.0})
    assert {far.loss.refusal.kind, *(share.refusal.kind for share in far.shares.values())} == {"extrapolated"}
    assert "N = 1e+15 is more than 100 times beyond the fitted range" in far.loss.refusal.reason
    with pytest.raises(ValueError, match="inputs: N = -3 is outside"):
        best_mixture({"code": fit, "web": fit}, {"code": 0.4, "web": 0.6}, {"N": -3.0, "D": 30.0})
    with pytest.raises(ValueError, match="fits: 'maths' is none of code, web"):
        best_mixture({"maths": fit}, {"maths": 1.0}, {"N": 100.0, "D": 30.0})
