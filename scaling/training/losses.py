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


def token_losses(logits_NxV: Array, targets_N: Array) -> tuple[Array, Array]:
    """Cross-entropy -log p(target) in nats, and log Z, both [N]; picking by comparison fuses, a gather does not."""
    log_z_N = jax.nn.logsumexp(logits_NxV, axis=-1)
    hit_NxV = targets_N[:, None] == jnp.arange(logits_NxV.shape[-1], dtype=targets_N.dtype)[None, :]
    return log_z_N - jnp.sum(jnp.where(hit_NxV, logits_NxV, 0), axis=-1), log_z_N


def accumulated(function: Callable[[Any], Any], like: Any, microbatches: Any) -> Any:
    """Sum of `function` over the leading axis of `microbatches`, one after the other; `like` has a result's shapes."""
    if len(jax.tree.leaves(microbatches)[0]) == 1:
        return function(jax.tree.map(lambda x: x[0], microbatches))

    def add(sums: Any, microbatch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, function(microbatch)), None

    return lax.scan(add, jax.tree.map(jnp.zeros_like, like), microbatches)[0]
