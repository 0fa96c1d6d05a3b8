"""Batches as the step sees them, and the loss of their tokens.

B windows, S sequence length, N = B × S tokens, V vocabulary, K domains.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

DATA_AXIS = "data"  # of the mesh: devices that share a run


class Batch(NamedTuple):
    """A device's part of a batch, and what the whole batch holds."""

    tokens_BxT: Array  # int32, T = S + 1
    domain_B: Array  # int32
    counts_K: Array  # int32, windows of the whole batch


def token_losses(logits_NxV: Array, targets_N: Array) -> tuple[Array, Array]:
    """Cross-entropy -log p(target) in nats, and log Z, both [N]; picking by comparison fuses, a gather does not."""
    log_z_N = jax.nn.logsumexp(logits_NxV, axis=-1)
    hit_NxV = targets_N[:, None] == jnp.arange(logits_NxV.shape[-1], dtype=targets_N.dtype)[None, :]
    return log_z_N - jnp.sum(jnp.where(hit_NxV, logits_NxV, 0), axis=-1), log_z_N
