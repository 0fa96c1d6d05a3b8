"""Softplus attention, plain and re-weighted, in place of softmax. G batch × heads, Q queries, K keys, E head width."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

POWER, EPSILON, PLAIN_ROWS = 15, 1e-8, 3  # of the re-weighting
SHORTEST = 1e-24  # squared length below which a query or key is not made longer


def unit(x_GxSxE: Array) -> Array:
    """Each vector over its length, in at least float32."""
    x_GxSxE = x_GxSxE.astype(jnp.promote_types(x_GxSxE.dtype, jnp.float32))
    squares_GxSx1 = jnp.sum(jnp.square(x_GxSxE), axis=-1, keepdims=True)
    return x_GxSxE * lax.rsqrt(jnp.maximum(squares_GxSx1, SHORTEST))


def queries_and_keys(q_GxSxE: Array, k_GxSxE: Array) -> tuple[Array, Array]:
    """log(E) q / |q| and k / |k|: what the scores of both kinds are products of."""
    return math.log(q_GxSxE.shape[-1]) * unit(q_GxSxE), unit(k_GxSxE)


def softplus_weights(scores_GxQxK: Array, mask_GxQxK: Array, reweighted: bool) -> tuple[Array, Array]:
    """Attention weights, and the sum that they are to be divided by: [G, Q, K] and [G, Q, 1].

    LSSA: A = softplus(S log n), S the scores, n the number of keys that a query sees, over its sum. LSSAR goes on:
    relu(n A - o)^15, o = 0 where n ≤ 3 and 1 elsewhere, over its sum + 1e-8 (arXiv 2501.13428). A query whose weights
    are all equal is left with none where n > 3: its sum is not 0, and attention gives it 0. Powers are taken of
    shares of the largest weight, as n^15 leaves the range of float32 from 372 keys on; the result is the same.
    """
    visible_GxQx1 = jnp.sum(mask_GxQxK, axis=-1, keepdims=True, dtype=scores_GxQxK.dtype)
    weights_GxQxK = jnp.where(mask_GxQxK, jax.nn.softplus(scores_GxQxK * jnp.log(visible_GxQx1)), 0)
    total_GxQx1 = jnp.sum(weights_GxQxK, axis=-1, keepdims=True)
    if not reweighted:
        return weights_GxQxK, total_GxQx1
    offset_GxQx1 = (visible_GxQx1 > PLAIN_ROWS).astype(scores_GxQxK.dtype)
    excess_GxQxK = jax.nn.relu(visible_GxQx1 * weights_GxQxK / total_GxQx1 - offset_GxQx1)
    largest_GxQx1 = lax.stop_gradient(jnp.max(excess_GxQxK, axis=-1, keepdims=True))
    largest_GxQx1 = jnp.where(largest_GxQx1 > 0, largest_GxQx1, 1)
    powers_GxQxK = (excess_GxQxK / largest_GxQx1) ** POWER
    smallest = jnp.finfo(scores_GxQxK.dtype).tiny
    return powers_GxQxK, (jnp.sum(powers_GxQxK, axis=-1, keepdims=True)
                          + EPSILON / jnp.maximum(largest_GxQx1**POWER, smallest))
