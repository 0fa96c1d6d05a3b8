"""Compute multipliers against closed forms."""

import math

import numpy as np
import pytest

from scaling.fitting.multiplier import compute_multiplier, mean_multiplier, path_loss
from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.size import CHINCHILLA
from simulated import known

RANGES = {"N": (1e8, 1e10), "D": (1e9, 1e11)}
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
LOSS_OF_COMPUTE = Law(
    "loss-of-compute",
    "E + K/C^g",
    "none",
    (Input("C", "FLOPs"),),
    "nats/token",
    (
        Parameter("E", "positive", (0.1, 5.0)),
        Parameter("K", "positive", (0.1, 5.0)),
        Parameter("g", "positive", (0.01, 1.0)),
    ),
    lambda p, x: p["E"] + p["K"] * power(x["C"], -p["g"]),
)


def better(times_size, times_data=1.0, alpha=ALPHA):
    """Parameters of a method for which a run counts as one with so many times the parameters and tokens."""
    return E, A * times_size**-ALPHA, B * times_data**-BETA, alpha, BETA


def closed_loss(flops, e=E, a=A, b=B, alpha=ALPHA, beta=BETA):
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return e + (a * g**-alpha + b * g**beta) * (flops / 6) ** (-alpha * beta / (alpha + beta))


def of(*draws):
    return known(CHINCHILLA, *draws, ranges=RANGES)


def test_the_path_is_the_closed_form():
    draws = [(E, A, B, ALPHA, BETA), better(2.0), better(1.0, 3.0)]
    flops = np.array([1e18, 1e20, 1e22])
    found = path_loss(of(*draws), np.array(draws), flops, {})
    np.testing.assert_allclose(found, [closed_loss(c, *d) for c, d in zip(flops, draws, strict=True)], rtol=1e-8)


def test_twice_the_size_and_three_times_the_tokens_are_worth_six_times_the_compute():
    draws = [better(1.0), better(1.0), better(1.0)]
    methods = [better(2.0, 3.0), better(2.0, 2.0), better(2.0, 4.0)]
    decision = compute_multiplier(of(*draws), of(*methods), 1e20, paired=True)
    assert decision.value == pytest.approx(6.0, rel=1e-6)
    np.testing.assert_allclose(decision.draws_B, [4.0, 8.0], rtol=1e-6)
    assert decision.refusal is None
    back = compute_multiplier(of(*methods), of(*draws), 1e20, paired=True)
    assert back.value == pytest.approx(1 / 6, rel=1e-6)
    mean = mean_multiplier(of(*draws), of(*methods), paired=True)
    assert mean.value == pytest.approx(6.0, rel=1e-5)
    np.testing.assert_allclose(mean.draws_B, [4.0, 8.0], rtol=1e-5)


def test_laws_of_compute_and_a_multiplier_that_depends_on_it():
    def law_of(*draws):
        return known(LOSS_OF_COMPUTE, *draws, ranges={"C": (1e18, 1e21)})

    baseline, method = law_of((1.7, 60.0, 0.1)), law_of((1.7, 100.0, 0.11))
    for flops in (1e19, 1e20):
        wanted = (60.0 / (100.0 * flops**-0.11)) ** (1 / 0.1) / flops
        assert compute_multiplier(baseline, method, flops).value == pytest.approx(wanted, rel=1e-6)
    low, high = (0.6 * 1e21**-0.1, 0.6 * 1e18**-0.1)
    assert low < high
    mean = mean_multiplier(baseline, method)
    assert (
        compute_multiplier(baseline, method, 1e18).value < mean.value < compute_multiplier(baseline, method, 1e21).value
    )
    assert math.isnan(mean.low)
    assert mean.refusal.kind == "few_groups"


def test_unpaired_draws_are_not_taken_as_resamples_of_the_same_runs():
    noise = np.random.default_rng(0).normal(scale=0.02, size=200)
    baseline = of(better(1.0), *[(E, A, B * math.exp(x), ALPHA, BETA) for x in noise])
    method = of(better(2.0), *[(E, A * 2**-ALPHA, B * math.exp(x), ALPHA, BETA) for x in noise])
    paired = compute_multiplier(baseline, method, 1e20, paired=True)
    free = compute_multiplier(baseline, method, 1e20)
    assert paired.high - paired.low < 1e-4
    assert free.low < 1.9 < 2.1 < free.high
    with pytest.raises(ValueError, match="paired: 200 draws of the baseline, 1 of the method"):
        compute_multiplier(baseline, of(better(2.0), better(2.0)), 1e20, paired=True)


def test_losses_that_only_one_reaches_are_refused():
    far = compute_multiplier(of(better(1.0), better(1.0)), of(better(4.0, 4.0), better(4.0, 4.0)), 6e20)
    assert far.value == pytest.approx(16.0, rel=1e-5)
    assert far.refusal.kind == "extrapolated"
    assert "not among those that both reach within their fitted compute" in far.refusal.reason
    lower = (1.2, A, B, ALPHA, BETA)
    never = compute_multiplier(of(better(1.0), better(1.0)), of(lower, lower), 1e21)
    assert never.refusal.kind == "unbounded"
    assert never.value == math.inf
    apart = mean_multiplier(of(better(1.0)), of(better(1e4, 1e4)))
    assert apart.refusal.kind == "infeasible"
    assert math.isnan(apart.value)


def test_laws_without_compute_are_refused():
    with pytest.raises(ValueError, match="these must leave C, or N and D"):
        compute_multiplier(of(better(1.0)), of(better(2.0)), 1e20, inputs={"N": 1e9})
    with pytest.raises(ValueError, match="flops: 0 must be > 0"):
        compute_multiplier(of(better(1.0)), of(better(2.0)), 0)
