"""Compute-optimal runs against closed forms, published figures and a brute-force search."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting import Refusal
from scaling.fitting.compute_optimal import compute_optimal
from scaling.laws.derived import with_fixed
from scaling.laws.kaplan import KAPLAN_PUBLISHED, KAPLAN_SIZE_DATA
from scaling.laws.mixture import D_CPT
from scaling.laws.repetition import CHINCHILLA_TIED, DATA_CONSTRAINED, DATA_CONSTRAINED_PUBLISHED
from scaling.laws.size import (
    CHINCHILLA,
    CHINCHILLA_GAMMA,
    EPOCH_PUBLISHED,
    OVER_TRAINING,
    OVER_TRAINING_PUBLISHED,
)
from simulated import TRUTH, known

GOPHER = 5.76e23
RANGES = {"N": (6e7, 1.6e10), "D": (1e9, 3e11)}
TIED = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.3527}


def fit_at(law, *parameters, ranges=RANGES):
    return known(law, *[[p[name] for name in law.parameter_names] for p in parameters], ranges=ranges)


def test_the_published_optimum():
    best = compute_optimal(fit_at(CHINCHILLA, EPOCH_PUBLISHED, EPOCH_PUBLISHED), GOPHER)
    assert best.parameters.value == pytest.approx(72.25e9, rel=1e-4)
    assert best.tokens.value == pytest.approx(1.3287e12, rel=1e-4)
    assert best.loss.value == pytest.approx(1.97444, abs=5e-6)
    assert best.tokens_per_parameter.value == pytest.approx(18.39, abs=0.005)
    assert best.exponent.value == pytest.approx(0.513, abs=5e-4)
    assert 6 * best.parameters.value * best.tokens.value == pytest.approx(GOPHER, rel=1e-12)
    assert best.parameters.refusal is None
    assert "best use of 5.76e+23 FLOPs" in str(best)


@pytest.mark.parametrize(("corpus", "ratio"), [("C4", 3.4), ("RedPajama", 7.4), ("RefinedWeb", 5.8)])
def test_over_training_is_cheapest_at_the_published_ratios(corpus, ratio):
    p = OVER_TRAINING_PUBLISHED[corpus]
    fit = fit_at(OVER_TRAINING, p, p, ranges={"C": (1e18, 1e21), "M": (5.0, 640.0)})
    for compute in (1e19, 1e22):
        best = compute_optimal(fit, compute)
        assert best.tokens_per_parameter.value == pytest.approx(ratio, abs=0.05)
        assert best.parameters.value == pytest.approx(math.sqrt(compute / 6 / best.tokens_per_parameter.value))
        assert best.exponent.value == 0.5
    direct = p["E"] + 2 * math.sqrt(p["a"] * p["b"]) * 1e22 ** -p["eta"]
    assert best.loss.value == pytest.approx(direct, rel=1e-12)


@pytest.mark.parametrize(
    ("law", "parameters", "held"),
    [
        (CHINCHILLA, EPOCH_PUBLISHED, "E"),
        (CHINCHILLA_TIED, TIED, "E"),
        (CHINCHILLA_GAMMA, EPOCH_PUBLISHED | {"gamma": 0.8}, "E"),
        (KAPLAN_SIZE_DATA, KAPLAN_PUBLISHED["kaplan-size-data"], "aD"),
    ],
)
def test_closed_forms_agree_with_the_search(law, parameters, held):
    """The same law with a parameter held is another law, for which no closed form is known."""
    closed = compute_optimal(fit_at(law, parameters, parameters), 1e22, flops=5.0)
    free = with_fixed(law, {held: parameters[held]})
    searched = compute_optimal(fit_at(free, parameters, parameters), 1e22, flops=5.0)
    for name in ("parameters", "tokens", "tokens_per_parameter", "loss", "exponent"):
        assert getattr(searched, name).value == pytest.approx(getattr(closed, name).value, rel=3e-6), name
    sizes = closed.parameters.value * np.geomspace(0.1, 10, 2001)
    losses = fit_at(law, parameters).predict({"N": sizes, "D": 1e22 / 5 / sizes})
    assert sizes[np.argmin(losses)] == pytest.approx(closed.parameters.value, rel=0.003)
    assert losses.min() == pytest.approx(closed.loss.value, rel=1e-9)


def test_each_draw_has_its_own_optimum():
    draws = [EPOCH_PUBLISHED | {"alpha": alpha} for alpha in (0.34, 0.345, 0.35, 0.355)]
    best = compute_optimal(fit_at(CHINCHILLA, EPOCH_PUBLISHED, *draws), 1e23)
    for p, n, a in zip(draws, best.parameters.draws_B, best.exponent.draws_B, strict=True):
        g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
        assert n == pytest.approx(g * (1e23 / 6) ** a, rel=1e-12)
        assert a == pytest.approx(p["beta"] / (p["alpha"] + p["beta"]))
    assert (best.parameters.low, best.parameters.high) == (
        min(best.parameters.draws_B),
        max(best.parameters.draws_B),
    )


def test_other_inputs_are_given():
    p = DATA_CONSTRAINED_PUBLISHED
    fit = fit_at(DATA_CONSTRAINED, p, p, ranges=RANGES | {"U": (1e8, 1e11)})
    best = compute_optimal(fit, 1e22, inputs={"U": 25e9})
    assert best.tokens.value == pytest.approx(237.3e9, abs=0.15e9)
    assert best.parameters.value == pytest.approx(7.02e9, abs=0.01e9)
    with pytest.raises(ValueError, match=r"law 'data-constrained' has inputs N, D, U; beside inputs= \[\]"):
        compute_optimal(fit, 1e22)


def test_d_cpt_is_allocated_in_closed_form_at_a_share():
    fit = fit_at(D_CPT, TRUTH, TRUTH, ranges={"N": (1e6, 1e7), "D": (2e6, 2e8), "r": (0.0, 1.0)})
    budget, share = 6 * 5e6 * 1e8, 0.6
    best = compute_optimal(fit, budget, inputs={"r": share})
    b = TRUTH["B"] * share ** TRUTH["eta"]
    g = (TRUTH["alpha"] * TRUTH["A"] / (TRUTH["beta"] * b)) ** (1 / (TRUTH["alpha"] + TRUTH["beta"]))
    a = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    assert best.parameters.value == pytest.approx(g * (budget / 6) ** a, rel=1e-9)
    sizes = best.parameters.value * np.geomspace(0.5, 2, 2001)
    losses = fit.predict({"N": sizes, "D": budget / 6 / sizes, "r": np.full(2001, share)})
    assert np.argmin(losses) == 1000
    assert best.loss.value == pytest.approx(losses[1000], rel=1e-12)
    assert compute_optimal(fit, budget, inputs={"r": 0.0}).parameters.refusal.kind == "no_interior_minimum"
    with pytest.raises(ValueError, match=r"inputs: r = 33 is outside \[0, 1\], its domain"):
        compute_optimal(fit, budget, inputs={"r": 33.0})
    narrow = fit_at(D_CPT, TRUTH, TRUTH, ranges={"N": (1e6, 1e7), "D": (2e6, 2e8), "r": (0.5, 1.0)})
    assert compute_optimal(narrow, budget, inputs={"r": 0.3}).parameters.refusal.kind == "extrapolated"


def test_a_budget_far_beyond_the_runs_is_refused():
    fit = fit_at(CHINCHILLA, EPOCH_PUBLISHED, EPOCH_PUBLISHED)
    largest = 6 * 1.6e10 * 3e11
    assert compute_optimal(fit, 99 * largest).parameters.refusal is None
    far = compute_optimal(fit, 101 * largest).parameters
    assert far.refusal.kind == "extrapolated"
    assert "more than 100 times beyond the fitted 3.6e+17 to 2.88e+22" in far.refusal.reason
    assert compute_optimal(fit, 101 * largest, reach=1000).parameters.refusal is None


def test_an_optimum_at_the_edge_is_refused():
    in_billions = EPOCH_PUBLISHED | {"B": 1e-9}
    for law in (CHINCHILLA, with_fixed(CHINCHILLA, {"E": 1.8172})):
        best = compute_optimal(fit_at(law, in_billions, in_billions), 1e21)
        assert best.parameters.refusal.kind == "no_interior_minimum"
        assert best.tokens_per_parameter.value == pytest.approx(1e-4)


def test_what_the_data_do_not_tell_is_refused():
    draws = [EPOCH_PUBLISHED | {"A": a} for a in np.geomspace(50, 5000, 40)]
    flat = compute_optimal(fit_at(CHINCHILLA, EPOCH_PUBLISHED, *draws), 1e22).parameters
    assert flat.refusal.kind == "flat"
    assert "more than a factor of 10; add runs that vary N at equal compute" in flat.refusal.reason
    fit = replace(
        fit_at(CHINCHILLA, EPOCH_PUBLISHED, EPOCH_PUBLISHED),
        refusals=(Refusal("collinear", "N and D move as one"), Refusal("starts_disagree", "few agree")),
    )
    best = compute_optimal(fit, 1e22)
    assert best.tokens.refusal.kind == "collinear"
    assert [warning.kind for warning in best.tokens.warnings] == ["collinear", "starts_disagree"]
    alone = compute_optimal(fit_at(CHINCHILLA, EPOCH_PUBLISHED), 1e22).parameters
    assert alone.refusal.kind == "few_groups"
    assert math.isnan(alone.low)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compute": 0.0}, "compute: 0.0 must be finite and > 0"),
        ({"compute": 1e22, "flops": -6.0}, "flops: -6.0 must be finite and > 0"),
        ({"compute": 1e22, "reach": 0.5}, "reach: 0.5 must be finite and >= 1"),
        ({"compute": 1e22, "inputs": {"U": 1.0}}, r"has inputs N, D; beside inputs= \['U'\]"),
    ],
)
def test_bad_questions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        compute_optimal(fit_at(CHINCHILLA, EPOCH_PUBLISHED), **settings)


def test_a_fit_to_simulated_runs_finds_the_optimum():
    rng = np.random.default_rng(1)
    n, d = np.exp(rng.uniform(np.log(3e7), np.log(1e10), 80)), np.exp(rng.uniform(np.log(1e9), np.log(3e11), 80))
    p = EPOCH_PUBLISHED
    losses = p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]
    table = pd.DataFrame({"N": n, "D": d, "loss": losses * np.exp(rng.normal(scale=0.003, size=80))})
    best = compute_optimal(fitting.fit(CHINCHILLA, table, group=None, bootstrap=200), 2e23)
    truth = compute_optimal(fit_at(CHINCHILLA, p), 2e23)
    assert best.parameters.refusal is None
    for name in ("parameters", "tokens", "loss", "exponent"):
        decision = getattr(best, name)
        assert decision.low < getattr(truth, name).value < decision.high, name
    assert best.parameters.high / best.parameters.low < 2
