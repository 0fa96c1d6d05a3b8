"""Bilevel reweighting against the reference sheet, a finite difference, and quadratics whose optimum is known."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from scaling.data.mixers.bilevel import bilevel
from simulated_mixing import drive, observation, values

pytestmark = pytest.mark.usefixtures("double")


def test_the_published_example() -> None:
    seen = observation([[2.0, 3], [1.5, 2.9]])
    whole = bilevel(values([0.5, 0.5], rate=1.0, penalty=10.0))
    before, after = whole.init(), whole.update(whole.init(), seen)
    np.testing.assert_allclose(before - after, [1.0, -1.0], rtol=1e-12)  # the gradient, at rate 1
    step = bilevel(values([0.5, 0.5], rate=1e-2, penalty=10.0))
    np.testing.assert_allclose(drive(step, [seen])[0], [0.495, 0.505], atol=5e-7)


def test_three_steps_by_hand_against_finite_differences() -> None:
    rng = np.random.default_rng(3)
    start, rate, penalty = [0.5, 0.3, 0.2], 0.2, 4.0
    losses = rng.uniform(1, 4, (3, 2, 3))
    counts = [(2, 1, 1), (3, 0, 1), (1, 1, 2)]
    logits, expected = [math.log(share) for share in start], []

    def objective(logits: list[float], gap: list[float], present: list[int]) -> float:
        raised = {k: math.exp(logits[k]) for k in present}
        return penalty * sum(raised[k] / sum(raised.values()) * gap[k] for k in present)

    for pair, count in zip(losses, counts, strict=True):
        gap, present = (pair[0] - pair[1]).tolist(), [k for k in range(3) if count[k]]
        moved = list(logits)
        for k in present:
            up, down = list(logits), list(logits)
            up[k], down[k] = up[k] + 1e-5, down[k] - 1e-5
            moved[k] -= rate * (objective(up, gap, present) - objective(down, gap, present)) / 2e-5
        logits = moved
        raised = [math.exp(value) for value in logits]
        expected.append([value / sum(raised) for value in raised])
    seen = [observation(pair, step, count) for step, (pair, count) in enumerate(zip(losses, counts, strict=True))]
    mixer = bilevel(values(start, rate=rate, penalty=penalty))
    np.testing.assert_allclose(drive(mixer, seen), expected, rtol=1e-8)  # central differences: about 1e-10


def test_quadratic_losses_reach_the_closed_form_optimum_whatever_the_penalty_and_the_start() -> None:
    # ℓ_k(x) = (x - k)² / 2 for k = 0, 1 and held-out (x - 0.3)² / 2: training on shares p ends at p_1, best is 0.3.
    def trained(penalty: jax.Array, start_K: jax.Array) -> tuple:
        mixer = bilevel(values([0.5, 0.5], rate=0.5)._replace(penalty=penalty, start_K=start_K))

        def one(carry: tuple, step: jax.Array) -> tuple:
            state, model, companion = carry
            share = mixer.weights(state, step)[1]
            model -= 0.05 * ((model - 0.3) + penalty * (model - share))
            companion -= 0.05 * penalty * (companion - share)
            seen = jnp.array([[x**2 / 2, (x - 1) ** 2 / 2] for x in (model, companion)])
            return (mixer.update(state, observation(seen, step)), model, companion), None

        zero = jnp.asarray(0.0)
        (state, model, companion), _ = lax.scan(one, (mixer.init(), zero, zero), jnp.arange(3000, dtype=jnp.int32))
        return mixer.weights(state, jnp.int32(3000)), model, companion

    penalties, starts = jnp.array([1.0, 10, 1, 10]), jnp.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.1, 0.9]])
    shares, model, companion = jax.jit(jax.vmap(trained))(penalties, starts)
    np.testing.assert_allclose(shares, [[0.7, 0.3]] * 4, atol=1e-6)
    np.testing.assert_allclose([model, companion], 0.3, atol=1e-6)


def test_an_absent_domain_keeps_its_logit() -> None:
    mixer = bilevel(values([0.5, 0.3, 0.2], rate=0.1, penalty=5.0))
    seen = observation([[2.0, math.nan, 1.0], [1.0, math.nan, 1.0]], counts=(2, 0, 2))
    before, after = mixer.init(), mixer.update(mixer.init(), seen)
    assert after[1] == before[1]
    assert after[0] < before[0]
    assert after[2] > before[2]
