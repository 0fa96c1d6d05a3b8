"""Losses and gradients of packed windows, in which not every token counts.

B windows of a device's part of a batch, S sequence length, T = S + 1, N = B × S, V vocabulary, A microbatches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from scaling.config import Run
from scaling.data.packed import predicted
from scaling.models.positions import begins
from scaling.training.losses import DATA_AXIS, accumulated, token_losses
from scaling.training.state import model_of


def packed_losses(
    program: Run, vocabulary: int, params: Any, tokens_BxT: Array, segments_BxT: Array
) -> tuple[Array, Array, Array]:
    """Cross-entropy, log² Z and whether it counts of every target, all [B, S]; 0 where it does not."""
    assert program.packing is not None
    begins_BxS = begins(jnp.abs(segments_BxT[:, :-1])) if program.packing.attention == "document" else None
    logits_NxV: Any = model_of(program, vocabulary).apply({"params": params}, tokens_BxT[:, :-1], begins_BxS)
    loss_N, log_z_N = token_losses(logits_NxV, tokens_BxT[:, 1:].reshape(-1))
    counts_BxS = predicted(segments_BxT)
    loss_BxS, square_BxS = (jnp.where(counts_BxS, x_N.reshape(counts_BxS.shape), 0)
                            for x_N in (loss_N, jnp.square(log_z_N)))
    return loss_BxS, square_BxS, counts_BxS


def window_means(program: Run, vocabulary: int, params: Any, tokens_BxT: Array, segments_BxT: Array) -> Array:
    """Mean cross-entropy of what counts in each window, [B]; 0 where nothing does."""
    loss_BxS, _, counts_BxS = packed_losses(program, vocabulary, params, tokens_BxT, segments_BxT)
    return jnp.sum(loss_BxS, axis=1) / jnp.maximum(jnp.sum(counts_BxS, axis=1, dtype=loss_BxS.dtype), 1)


def packed_gradients(
    program: Run, vocabulary: int, data_shards: int, parts: int, params: Any, tokens_BxT: Array, segments_BxT: Array,
    z_loss: Array,
) -> tuple[Any, Array, Array]:
    """Gradient of the objective, cross-entropy, and the share of targets that count.

    The objective is sum_b,s c (loss + z_loss · log² Z) / sum_b,s c over the whole batch, c whether a target counts:
    its `parts` microbatches and the devices that share it hold unequal numbers of such targets, so that a mean of
    their means would be another number. A device's sum is scaled so that the mean over devices is that of the batch.
    """
    counts_BxS = predicted(segments_BxT)
    count = jnp.sum(counts_BxS, dtype=z_loss.dtype)
    if data_shards > 1:
        count = lax.psum(count, DATA_AXIS)
    scale = data_shards / jnp.maximum(count, 1)

    def objective(params: Any, tokens_BxT: Array, segments_BxT: Array) -> tuple[Array, Array]:
        loss_BxS, square_BxS, _ = packed_losses(program, vocabulary, params, tokens_BxT, segments_BxT)
        loss = scale * jnp.sum(loss_BxS)
        return loss + z_loss * scale * jnp.sum(square_BxS), loss

    def one(windows: tuple[Array, Array]) -> tuple[Any, Array]:
        return jax.grad(objective, has_aux=True)(params, *windows)

    windows_AxBxT = jax.tree.map(lambda x: x.reshape(parts, -1, x.shape[-1]), (tokens_BxT, segments_BxT))
    grads, loss = accumulated(one, (params, z_loss), windows_AxBxT)
    return grads, loss, count / (counts_BxS.size * data_shards)
