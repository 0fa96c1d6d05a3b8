"""Critical ratios and turning points against closed forms and published decisions."""

import math

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting import critical_ratio, turning_point
from scaling.fitting.inversions import saturated
from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.mixture import CMR_DOMAIN_CHANGE, CMR_GENERAL_CHANGE, CMR_RATIO
from scaling.laws.size import CHINCHILLA
from simulated import TRUTH, d_cpt_loss, known

SHARES = {"R": (0.0, 1.0)}


def test_ratio_law_inverts_in_closed_form_draw_by_draw():
    draws = [(0.5, 1.5, 2.0), (0.4, 1.2, 2.0), (0.6, 2.0, 2.0), (0.5, 1.0, 2.05)]
    decision = critical_ratio(known(CMR_RATIO, *draws, ranges=SHARES), limit=2.2)
    wanted = [((2.2 - beta) / alpha) ** (1 / s) for alpha, s, beta in draws]
    assert decision.value == pytest.approx(wanted[0], abs=1e-12)
    np.testing.assert_allclose(decision.draws_B, wanted[1:], atol=1e-12)
    assert (decision.low, decision.high) == (min(decision.draws_B), max(decision.draws_B))
    assert decision.refusal is None
    assert decision.unsolved == 0


def test_a_limit_may_differ_between_draws():
    fit = known(CMR_RATIO, *[(0.5, 1.0, 2.0)] * 4, ranges=SHARES)
    decision = critical_ratio(fit, 2.2, limit_draws=np.array([2.1, 2.2, 2.3]))
    np.testing.assert_allclose(decision.draws_B, [0.2, 0.4, 0.6], atol=1e-12)
    with pytest.raises(ValueError, match=r"limit_draws: shape \(2,\) must be one limit a bootstrap draw, \(3,\)"):
        critical_ratio(fit, 2.2, limit_draws=np.zeros(2))
    with pytest.raises(ValueError, match="limit: nan must be finite"):
        critical_ratio(fit, math.nan)


def test_d_cpt_is_read_at_the_general_share(d_cpt_fit):
    at = {"N": 3e6, "D": 1e8}
    limit = d_cpt_loss(3e6, 1e8, 1 - 0.8, TRUTH)
    decision = critical_ratio(d_cpt_fit, limit, at)
    assert decision.low < 0.8 < decision.high
    assert decision.value == pytest.approx(0.8, abs=0.03)
    assert d_cpt_fit.predict(at | {"r": 1 - decision.value}) == pytest.approx(limit, rel=1e-12)
    with pytest.raises(ValueError, match=r"inputs: \['N'\] must be exactly \['D', 'N'\]"):
        critical_ratio(d_cpt_fit, limit, {"N": 3e6})
    with pytest.raises(ValueError, match="inputs: D = -1 is outside"):
        critical_ratio(d_cpt_fit, limit, {"N": 3e6, "D": -1.0})


GENERAL_SLICE = Law(
    name="d-cpt-slice",
    formula="E + C/(r+eps)^gamma",
    citation="Que et al. 2024, at fixed N and D",
    inputs=(Input("r", "general share", 0.0, 1.0, low_included=True, share_of="measured"),),
    target="nats/token",
    parameters=(
        Parameter("E", "positive", (0.1, 5.0), linear=True),
        Parameter("C", "positive", (1e-4, 1.0), linear=True),
        Parameter("gamma", "positive", (0.1, 3.0)),
        Parameter("eps", "positive", (1e-3, 0.5)),
    ),
    predict=lambda p, x: p["E"] + p["C"] * power(x["r"] + p["eps"], -p["gamma"]),
)


def test_the_published_chemistry_trade_off():
    """1.8B, 10B tokens, 3% above 2.8602: the best share observed is 0.924."""
    domain = np.array([0.9, 0.91, 0.92, 0.924, 0.93, 0.94, 1.0])
    loss = [2.9052, 2.9193, 2.9376, 2.9445, 2.9644, 2.9848, 3.4667]
    table = pd.DataFrame({"r": 1 - domain, "loss": loss})
    fit = fitting.fit(GENERAL_SLICE, table, group=None, bootstrap=100)
    decision = critical_ratio(fit, 1.03 * 2.8602)
    assert decision.value == pytest.approx(0.924, abs=0.003)
    assert decision.low <= 0.924 <= decision.high


@pytest.mark.parametrize(
    ("limit", "kind", "value", "reason"),
    [
        (1.9, "infeasible", math.nan, "exceeds the limit 1.9 at every domain share, 0 included"),
        (2.5, "unbounded", 1.0, r"a domain share of 1 still satisfies the limit 2.5; the critical ratio is 1 or more"),
    ],
)
def test_limits_out_of_reach(limit, kind, value, reason):
    decision = critical_ratio(known(CMR_RATIO, *[(0.4, 1.0, 2.0)] * 5), limit)
    assert decision.refusal.kind == kind
    assert decision.value == pytest.approx(value, nan_ok=True)
    assert reason in decision.refusal.reason
    assert "refused" in str(decision)


def test_a_disconnected_set_is_said():
    dip = Law(
        "dip",
        "(R-c)^2",
        "none",
        (Input("R", "domain share", 0.0, 1.0, share_of="domain"),),
        "t",
        (Parameter("c", "unit", (0.1, 0.9)),),
        lambda p, x: (x["R"] - p["c"]) ** 2,
    )
    decision = critical_ratio(known(dip, (0.5,), (0.5,)), 0.01)
    assert decision.refusal.kind == "non_monotone"
    assert decision.value == pytest.approx(0.6, abs=1e-9)
    assert "not all: 0 does not" in decision.refusal.reason


def test_draws_without_solution_count_as_zero_and_many_of_them_refuse():
    draws = [(0.5, 1.0, 2.0)] * 9 + [(0.5, 1.0, 2.3)] * 2
    decision = critical_ratio(known(CMR_RATIO, *draws, ranges=SHARES), 2.2)
    assert decision.unsolved == pytest.approx(0.2)
    assert decision.low == 0
    assert decision.refusal.kind == "unstable"
    assert "20% of the bootstrap draws have no solution (at most 10% tolerated)" in decision.refusal.reason
    assert critical_ratio(known(CMR_RATIO, *draws, ranges=SHARES), 2.2, tolerated=0.3).refusal is None


def test_a_share_that_no_run_tried_is_extrapolated(d_cpt_fit):
    fit = known(CMR_RATIO, *[(0.5, 1.0, 2.0)] * 4, ranges={"R": (0.05, 0.25)})
    assert critical_ratio(fit, 2.1).refusal is None
    far = critical_ratio(fit, 2.2)
    assert (far.value, far.refusal.kind) == (pytest.approx(0.4), "extrapolated")
    assert "R = 0.4 is outside the fitted range [0.05, 0.25]" in far.refusal.reason
    at = {"N": 3e6, "D": 1e13}
    limit = d_cpt_loss(3e6, 1e13, 0.5, TRUTH)
    assert critical_ratio(d_cpt_fit, limit, at).refusal.kind == "extrapolated"
    assert critical_ratio(d_cpt_fit, limit, at, reach=1e6).refusal is None


def test_no_draws_no_interval_and_no_ratio_no_answer():
    decision = critical_ratio(known(CMR_RATIO, (0.5, 1.0, 2.0), ranges=SHARES), 2.2)
    assert decision.value == pytest.approx(0.4)
    assert math.isnan(decision.low)
    assert decision.refusal.kind == "few_groups"
    with pytest.raises(ValueError, match="law 'chinchilla' has 0 mixture ratios"):
        critical_ratio(known(CHINCHILLA, (1.0,) * 5), 2.0)


# alpha2, alpha3, beta2, s2, s3: rises, then falls
GENERAL = (0.05, -0.02, 0.0, 0.3, 0.6)
DOMAIN = (-0.2, 0.25, 0.0)


def test_turning_point_is_where_the_general_change_peaks():
    others = [(0.05, -0.018, 0.0, 0.3, 0.6), (0.04, -0.02, 0.0, 0.3, 0.7)]
    decision = turning_point(known(CMR_GENERAL_CHANGE, GENERAL, *others))
    closed = [(-(a2 * s2) / (a3 * s3)) ** (1 / (s3 - s2)) for a2, a3, _, s2, s3 in (GENERAL, *others)]
    assert decision.value == pytest.approx(closed[0], rel=1e-10)
    np.testing.assert_allclose(decision.draws_B, closed[1:], rtol=1e-10)
    tokens = np.geomspace(0.1, 100, 2001)
    curve = known(CMR_GENERAL_CHANGE, GENERAL).predict({"T": tokens})
    assert tokens[np.argmax(curve)] == pytest.approx(decision.value, rel=0.01)


def test_a_finite_multiplier_satisfies_the_implicit_equation_and_tends_to_the_limit():
    general, domain = known(CMR_GENERAL_CHANGE, GENERAL), known(CMR_DOMAIN_CHANGE, (DOMAIN[0], DOMAIN[1], DOMAIN[2]))
    a2, a3, _, s2, s3 = GENERAL
    a1, s1, _ = DOMAIN
    for multiplier in (100.0, 7000.0):
        t0 = turning_point(general, domain, multiplier).value
        inner = 1 + (a3 * s3) / (a2 * s2) * t0 ** (s3 - s2)
        implicit = (-(a1 * s1) / (multiplier * a2 * s2) / inner) ** (1 / (s2 - s1))
        assert t0 == pytest.approx(implicit, rel=1e-6)
    limit = turning_point(general).value
    assert t0 < limit
    assert turning_point(general, domain, 1e9).value == pytest.approx(limit, rel=1e-6)
    with pytest.raises(ValueError, match="a fit of cmr-domain-change is needed for the finite multiplier 100"):
        turning_point(general, multiplier=100.0)
    with pytest.raises(ValueError, match="multiplier: -1 must be > 0"):
        turning_point(general, multiplier=-1)
    with pytest.raises(ValueError, match="expected one of 'cmr-general-change' with 0"):
        turning_point(domain)


@pytest.mark.parametrize(("sign", "value", "how"), [(1, math.nan, "still rises"), (-1, 0.0, "falls throughout")])
def test_curves_that_never_turn(sign, value, how):
    parameters = (sign * 0.05, sign * 0.02, 0.0, 0.3, 0.6)
    decision = turning_point(known(CMR_GENERAL_CHANGE, parameters, parameters))
    assert decision.refusal.kind == "no_turning_point"
    assert how in decision.refusal.reason
    assert decision.value == pytest.approx(value, nan_ok=True)
    assert decision.draws_B[0] == (math.inf if sign > 0 else 0)


def test_interval_covers_the_truth_as_often_as_it_says():
    """60 simulated experiments of 6 ratios x 4 runs; a 95% interval that covers below 85% would be broken."""
    share = np.repeat([1 / 8, 1 / 4, 1 / 3, 1 / 2, 3 / 4, 1.0], 4)
    truth = ((2.25 - 2.0) / 0.4) ** (1 / 1.3)
    covered = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(scale=0.01, size=share.size)
        table = pd.DataFrame({"R": share, "loss": 2.0 + 0.4 * share**1.3 + noise})
        fit = fitting.fit(CMR_RATIO, table, group=None, objective=fitting.least_squares(), bootstrap=200, seed=seed)
        decision = critical_ratio(fit, 2.25)
        covered.append(decision.low <= truth <= decision.high)
    assert 0.85 <= np.mean(covered) < 1


def test_sizes_that_end_at_one_loss_are_no_best_size():
    """Parameters are 10 exp(-z/2): a plateau of 4 in z is a factor e^2; places without a loss count nothing."""
    grid_K = np.linspace(-8, 8, 161)

    def plateau(z_BxK):
        return np.where(np.abs(z_BxK) > 7, np.nan, 2 + np.maximum(np.abs(z_BxK) - 2, 0) ** 2)

    found = saturated(plateau, grid_K, 3, 10.0)
    assert found.kind == "flat"
    assert f"{10 / np.e:.3g} to {10 * np.e:.3g} parameters end at the same loss" in found.reason
    assert saturated(lambda z_BxK: 2 + z_BxK**2, grid_K, 3, 10.0) is None
    assert saturated(lambda z_BxK: np.full_like(z_BxK, np.nan), grid_K, 3, 10.0) is None
