"""Batches as the step sees them, and the loss of their tokens.

B windows, S sequence length, N = B × S tokens, V vocabulary, K domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

DATA_AXIS = "data"  # of the mesh: devices that share a run


class Batch(NamedTuple):
    """A device's part of a batch, and what the whole batch holds."""

    tokens_BxT: Array  # int32, T = S + 1
    domain_B: Array  # int32
    counts_K: Array  # int32, windows of the whole batch
    segments_BxT: Array | None = None  # int32, of packed windows


@jax.custom_vjp
def token_losses(logits_NxV: Array, targets_N: Array) -> tuple[Array, Array]:
    """Cross-entropy -log p(target) in nats, and log Z, both [N]. Exponentials are taken once, in the forward pass."""
    return _losses_forward(logits_NxV, targets_N)[0]


def _losses_forward(logits_NxV: Array, targets_N: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    top_Nx1 = lax.stop_gradient(jnp.max(logits_NxV, axis=-1, keepdims=True))
    exp_NxV = jnp.exp(logits_NxV - top_Nx1)
    total_N = jnp.sum(exp_NxV, axis=-1)
    log_z_N = jnp.log(total_N) + top_Nx1[:, 0]
    picked_N = jnp.take_along_axis(logits_NxV, targets_N[:, None], axis=-1, mode="clip")[:, 0]
    return (log_z_N - picked_N, log_z_N), (exp_NxV, total_N, targets_N)


def _losses_backward(saved: tuple[Array, Array, Array], given: tuple[Array, Array]) -> tuple[Array, None]:
    """p (dloss + dlog Z) - dloss at the target; to compare fuses, a scatter does not."""
    (exp_NxV, total_N, targets_N), (dloss_N, dlog_z_N) = saved, given
    hit_NxV = targets_N[:, None] == jnp.arange(exp_NxV.shape[-1], dtype=targets_N.dtype)[None, :]
    return exp_NxV * ((dloss_N + dlog_z_N) / total_N)[:, None] - jnp.where(hit_NxV, dloss_N[:, None], 0), None


token_losses.defvjp(_losses_forward, _losses_backward)


def accumulated(function: Callable[[Any], Any], like: Any, microbatches: Any) -> Any:
    """Sum of `function` over the leading axis of `microbatches`, one after the other; `like` has a result's shapes."""
    if len(jax.tree.leaves(microbatches)[0]) == 1:
        return function(jax.tree.map(lambda x: x[0], microbatches))

    def add(sums: Any, microbatch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, function(microbatch)), None

    return lax.scan(add, jax.tree.map(jnp.zeros_like, like), microbatches)[0]
