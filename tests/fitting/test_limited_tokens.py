"""The ratio for limited domain tokens against its stationarity condition and the truth behind simulated runs."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from scaling.fitting.limited_tokens import ratio_for_limited_tokens
from scaling.laws.mixture import CMR_RATIO, D_CPT
from simulated import TRUTH, d_cpt_loss, known

RANGES = {"N": (1e6, 1e7), "D": (2e6, 2e8), "r": (0.0, 1.0)}


def stationary(p, domain_tokens):
    """The share at which dL/dr = 0 along D = D_d/r, from the formula."""

    def slope(r):
        data = (p["eta"] + p["beta"]) * p["B"] * r ** (p["eta"] + p["beta"] - 1) / domain_tokens ** p["beta"]
        return data - p["gamma"] * p["C"] / (r + p["eps"]) ** (p["gamma"] + 1)

    return brentq(slope, 0.05, 1.0, xtol=1e-14)


def fit_of(*truths, ranges=RANGES):
    return known(D_CPT, *[[p[name] for name in D_CPT.parameter_names] for p in truths], ranges=ranges)


def test_the_optimum_satisfies_the_stationarity_condition_draw_by_draw():
    draws = [TRUTH, TRUTH | {"B": 500.0}, TRUTH | {"C": 0.45}, TRUTH | {"beta": 0.39}]
    decision = ratio_for_limited_tokens(fit_of(*draws), 1e7, {"N": 3e6})
    wanted = [stationary(p, 1e7) for p in draws]
    assert decision.value == pytest.approx(wanted[0], rel=1e-6)
    np.testing.assert_allclose(decision.draws_B, wanted[1:], rtol=1e-6)
    assert decision.refusal is None
    assert decision.unsolved == 0
    shares = np.linspace(0.01, 1, 2000)
    assert shares[np.argmin(d_cpt_loss(3e6, 1e7 / shares, shares))] == pytest.approx(decision.value, abs=1e-3)


def test_the_truth_behind_simulated_runs_lies_in_the_interval(d_cpt_fit):
    truth = stationary(TRUTH, 1e7)
    decision = ratio_for_limited_tokens(d_cpt_fit, 1e7, {"N": 3e6})
    assert decision.low <= truth <= decision.high
    assert decision.value == pytest.approx(truth, abs=0.05)
    assert decision.high - decision.low < 0.3
    assert decision.refusal is None
    assert decision.warnings == d_cpt_fit.refusals


def test_ends_of_the_range_are_refused_and_kept_in_the_interval():
    plenty = TRUTH | {"C": 4.0}
    decision = ratio_for_limited_tokens(fit_of(plenty, plenty, TRUTH, TRUTH), 1e8, {"N": 3e6})
    assert decision.refusal.kind == "no_interior_minimum"
    assert "falls all the way to a share of 1" in decision.refusal.reason
    assert (decision.value, decision.high) == (1.0, 1.0)
    assert decision.unsolved == pytest.approx(1 / 3)
    nothing = TRUTH | {"C": 1e-4}
    decision = ratio_for_limited_tokens(fit_of(nothing, nothing), 1e7, {"N": 3e6})
    assert decision.refusal.kind == "no_interior_minimum"
    assert "more general tokens always help" in decision.refusal.reason
    assert decision.value == pytest.approx(1e-3)


def test_an_optimum_beyond_the_fitted_tokens_is_refused():
    short = fit_of(TRUTH, TRUTH, ranges=RANGES | {"D": (1e5, 4e6)})
    decision = ratio_for_limited_tokens(short, 1e7, {"N": 3e6})
    assert decision.refusal.kind == "extrapolated"
    assert "more than 3 times beyond the fitted range [1e+05, 4e+06]" in decision.refusal.reason
    assert ratio_for_limited_tokens(short, 1e7, {"N": 3e6}, reach=10.0).refusal is None
    narrow = fit_of(TRUTH, TRUTH, ranges=RANGES | {"r": (0.7, 1.0)})
    decision = ratio_for_limited_tokens(narrow, 1e7, {"N": 3e6})
    assert decision.refusal.kind == "extrapolated"
    assert "outside the fitted range [0.7, 1]" in decision.refusal.reason


def test_bad_questions_are_refused_by_name():
    fit = fit_of(TRUTH, TRUTH)
    with pytest.raises(ValueError, match="domain_tokens: -1 must be > 0"):
        ratio_for_limited_tokens(fit, -1, {"N": 3e6})
    with pytest.raises(ValueError, match=r"inputs: \['D'\] must be exactly \['D', 'N'\]"):
        ratio_for_limited_tokens(fit, 1e7)
    with pytest.raises(ValueError, match="law 'cmr-ratio' has no tokens D"):
        ratio_for_limited_tokens(known(CMR_RATIO, (0.5, 1.0, 2.0)), 1e7)
    assert math.isnan(ratio_for_limited_tokens(fit_of(TRUTH), 1e7, {"N": 3e6}).low)
