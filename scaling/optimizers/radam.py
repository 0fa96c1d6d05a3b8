"""RAdam: Adam whose step is held back while few gradients make its second moment uncertain."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import Mask, decaying, scalar, widened

THRESHOLD = 5.0  # of the authors' code and optax; the paper's text has 4


class RadamState(NamedTuple):
    """Adam's moments; Σ β₂^i and Σ i β₂^i over the gradients seen, i steps old."""

    adam: optax.ScaleByAdamState
    weights: Array
    ages: Array


def averaging_length(state: RadamState) -> Array:
    """ρ_t = ρ_∞ - 2 t β₂^t / (1 - β₂^t) = 1 + 2 × mean age of a squared gradient in v, of a state after an update.

    ρ_∞ = 2 / (1-β₂) - 1. The first form cancels: in float32 optax's r_6 is 0.2 % off at β₂ .999 and 31 % at .9999.
    """
    return 1 + 2 * state.ages / state.weights


def radam(learning_rate: Any, b1: Any, b2: Any, eps: Any, weight_decay: Any, released: bool,
          mask: Mask = None) -> optax.GradientTransformation:
    """RAdam: p -= η (λ p + r_t m̂ / (√v̂ + ε)) from ρ_t = 5 on, r_t² = (ρ_t-4)(ρ_t-2)ρ_∞ / ((ρ_∞-4)(ρ_∞-2)ρ_t).

    While ρ_t < 5, p -= η (λ p + m̂) as in the paper; `released`: neither step nor decay, the default of the authors'
    code. With β₂ < 2/3 ρ_∞ < 5, and this stays so. Liu et al. 2020, arXiv 1908.03265; differs from the paper in the
    threshold, from the authors' code in ε, which it adds to √v and not to √v̂.
    """
    adam = optax.scale_by_adam(b1, b2, eps)
    longest = jnp.maximum(2 / (1 - b2) - 1, THRESHOLD)  # a smaller one is never reached
    start = 0.0 if released else 1.0

    def init(params: Any) -> RadamState:
        return RadamState(adam.init(params), scalar(params), scalar(params))

    def update(gradients: Any, state: RadamState, params: Any) -> tuple[Any, RadamState]:
        steps, moments = adam.update(gradients, state.adam)
        state = RadamState(moments, 1 + b2 * state.weights, b2 * (state.ages + state.weights))
        length = averaging_length(state)
        rectified, rho = length >= THRESHOLD, jnp.maximum(length, THRESHOLD)
        factor = jnp.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
        decay = weight_decay * jnp.where(rectified, 1, start)

        def one(p: Array, u: Array, m: Array, decays: bool) -> Array:
            return -learning_rate * (jnp.where(rectified, factor * u, start * m) + decay * decays * p)

        means = optax.tree.bias_correction(moments.mu, b1, moments.count)
        return jax.tree.map(one, params, steps, means, decaying(mask, params)), state

    return widened(optax.GradientTransformation(init, update))
