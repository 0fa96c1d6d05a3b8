"""What repeated data are worth: closed forms, published figures, refusals."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from scaling.fitting import Refusal
from scaling.fitting.compute_optimal import compute_optimal
from scaling.fitting.repeats import allocation, effective_tokens, epochs_until, value_of_next_epoch
from scaling.laws.derived import with_fixed
from scaling.laws.repetition import DATA_CONSTRAINED, DATA_CONSTRAINED_PUBLISHED
from scaling.laws.size import CHINCHILLA
from simulated import known

RANGES = {"N": (1e8, 1e10), "D": (1e9, 1e12), "U": (1e9, 1e11)}
PUBLISHED = DATA_CONSTRAINED_PUBLISHED


def fit_of(*truths):
    return known(
        DATA_CONSTRAINED, *[[p[name] for name in DATA_CONSTRAINED.parameter_names] for p in truths], ranges=RANGES
    )


FIT = fit_of(PUBLISHED, PUBLISHED | {"Q_D": 12.0}, PUBLISHED, PUBLISHED | {"Q_D": 20.0})


def plain_loss(tokens, flops, unique, p=PUBLISHED):
    """The law in plain numpy, at C = 6*N*D."""
    size = flops / (6 * tokens)

    def worth(seen, new, scale):
        new = np.minimum(new, seen)
        return new + new * scale * (1 - np.exp(-(seen / new - 1) / scale))

    needed = (p["A"] / p["B"]) ** (1 / p["alpha"]) * unique
    return (
        p["E"]
        + p["A"] * worth(size, needed, p["Q_N"]) ** -p["alpha"]
        + p["B"] * worth(tokens, unique, p["Q_D"]) ** -p["alpha"]
    )


def test_effective_tokens_and_the_value_of_an_epoch_in_closed_form():
    scale = PUBLISHED["Q_D"]
    worth = effective_tokens(FIT, 100e9, 25e9)
    assert worth.value == pytest.approx(25e9 * (1 + scale * (1 - math.exp(-3 / scale))), rel=1e-12)
    assert worth.low == pytest.approx(25e9 * (1 + 12 * (1 - math.exp(-3 / 12))), rel=1e-12)
    assert worth.high == pytest.approx(25e9 * (1 + 20 * (1 - math.exp(-3 / 20))), rel=1e-12)
    assert effective_tokens(FIT, 10e9, 25e9).value == 10e9
    more = effective_tokens(FIT, 125e9, 25e9).value - worth.value
    assert value_of_next_epoch(FIT, 4).value == pytest.approx(more / 25e9, rel=1e-9)
    assert worth.refusal is None


def test_the_epochs_at_which_a_repeat_is_worth_a_share():
    epochs = epochs_until(FIT, math.exp(-1))
    assert epochs.value == pytest.approx(1 + PUBLISHED["Q_D"], rel=1e-12)
    step = 1e3
    here = epochs_until(FIT, 0.5).value * 25e9
    marginal = (effective_tokens(FIT, here + step, 25e9).value - effective_tokens(FIT, here - step, 25e9).value) / step
    assert marginal / 2 == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(ValueError, match=r"share: 1 must lie in \(0, 1\)"):
        epochs_until(FIT, 1)
    with pytest.raises(ValueError, match=r"epochs: 0.5 must be >= 1"):
        value_of_next_epoch(FIT, 0.5)


def test_the_published_allocation_of_1e22_flops_over_25e9_unique_tokens():
    best = allocation(FIT, 1e22, 25e9)
    assert best.tokens.value == pytest.approx(237.3e9, rel=1e-3)
    assert best.epochs.value == pytest.approx(9.49, abs=0.01)
    assert best.parameters.value == pytest.approx(7.02e9, rel=2e-3)
    second = minimize_scalar(
        lambda log_tokens: plain_loss(np.exp(log_tokens), 1e22, 25e9),
        bounds=(math.log(1e11), math.log(1e12)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert best.tokens.value == pytest.approx(math.exp(second.x), rel=1e-5)
    assert best.loss.value == pytest.approx(second.fun, rel=1e-12)
    assert best.epochs.low < 9.49 < best.epochs.high
    assert best.tokens.refusal is None


def test_enough_unique_tokens_give_the_chinchilla_optimum():
    best = allocation(FIT, 1e21, 1e12)
    ratio = (PUBLISHED["A"] / PUBLISHED["B"]) ** (-1 / PUBLISHED["alpha"])
    assert best.tokens.value == pytest.approx(math.sqrt(1e21 / 6 * ratio), rel=1e-5)
    assert best.epochs.value < 1


def test_an_untold_scale_of_repetition_is_refused_only_where_it_matters():
    vague = fit_of(PUBLISHED, *[PUBLISHED | {"Q_D": float(q)} for q in np.geomspace(3, 300, 40)])
    decision = epochs_until(vague, 0.5)
    assert decision.refusal.kind == "flat"
    assert "Q_D is anywhere in [" in decision.refusal.reason
    assert "more than a factor of 10; add runs that repeat more" in decision.refusal.reason
    assert allocation(vague, 1e22, 25e9).tokens.refusal.kind == "flat"
    assert allocation(vague, 1e21, 1e12).tokens.refusal is None
    assert effective_tokens(vague, 10e9, 25e9).refusal is None
    flagged = replace(FIT, refusals=(Refusal("bound", "Q_D ended on its upper bound 10000", ("Q_D",)),))
    decision = epochs_until(flagged, 0.5)
    assert decision.refusal.kind == "flat"
    assert decision.warnings == flagged.refusals
    assert "the fit was refused, bound: Q_D ended on its upper bound" in str(decision)


def test_an_allocation_far_beyond_the_runs_is_refused():
    far = allocation(FIT, 1e27, 25e9)
    assert far.tokens.refusal.kind == "extrapolated"
    assert "more than 100 times beyond the fitted range" in far.loss.refusal.reason
    assert allocation(FIT, 1e24, 25e9, reach=2).tokens.refusal.kind == "extrapolated"
    assert allocation(FIT, 1e24, 25e9, reach=1e6).tokens.refusal is None


def test_a_budget_that_unique_tokens_cannot_use_has_no_best_size():
    """At 1e27 FLOPs over 25e9 tokens sizes a factor of 200 apart end at one loss; the least of them was an accident."""
    found = allocation(FIT, 1e27, 25e9, reach=1e6)
    assert found.loss.refusal.kind == "flat"
    small, large = map(float, re.search(r"(\S+) to (\S+) parameters end at the same loss", str(found.loss)).groups())
    loss = FIT.predict({"N": np.array([small, large]), "D": 1e27 / 6 / np.array([small, large]), "U": np.full(2, 25e9)})
    np.testing.assert_allclose(loss, found.loss.value, rtol=2e-9)
    assert large > 100 * small
    both = compute_optimal(FIT, 1e27, inputs={"U": 25e9}, reach=1e6)
    assert both.parameters.refusal == found.parameters.refusal


def test_scales_may_be_fixed_and_other_laws_are_refused():
    law = with_fixed(DATA_CONSTRAINED, {name: PUBLISHED[name] for name in ("E", "A", "B", "alpha")})
    fit = known(law, (PUBLISHED["Q_D"], PUBLISHED["Q_N"]), (12.0, 5.0), (20.0, 5.0), ranges=RANGES)
    assert epochs_until(fit, 0.5).value == epochs_until(FIT, 0.5).value
    assert allocation(fit, 1e22, 25e9).tokens.value == pytest.approx(allocation(FIT, 1e22, 25e9).tokens.value, rel=1e-9)
    held = known(with_fixed(DATA_CONSTRAINED, {"Q_D": 10.0}), [1.0, 1.0, 1.0, 0.3, 5.0], ranges=RANGES)
    assert epochs_until(held, math.exp(-1)).value == pytest.approx(11)
    with pytest.raises(ValueError, match="it is of law 'chinchilla'; fit 'data-constrained'"):
        epochs_until(known(CHINCHILLA, (1.0,) * 5), 0.5)
    with pytest.raises(ValueError, match="flops: -1 must be a finite positive number"):
        allocation(FIT, -1, 25e9)
