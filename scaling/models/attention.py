"""Causal multi-head self-attention as plain batched products over G = batch × heads."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from scaling.models.dense import dense
from scaling.models.normalization import normalization
from scaling.models.positions import rotate


def causal_attention(q_GxSxE: Array, k_GxSxE: Array, v_GxSxE: Array) -> Array:
    """softmax(q kᵀ / √E + causal mask) v; softmax in at least float32."""
    dtype = jnp.promote_types(q_GxSxE.dtype, jnp.float32)
    positions, head_width = q_GxSxE.shape[1:]
    logits_GxSxS = jnp.einsum("gqe,gke->gqk", q_GxSxE * head_width**-0.5, k_GxSxE).astype(dtype)
    mask_1xSxS = jnp.tril(jnp.ones((1, positions, positions), bool))
    weights_GxSxS = jax.nn.softmax(jnp.where(mask_1xSxS, logits_GxSxS, jnp.finfo(dtype).min), axis=-1)
    return jnp.einsum("gqk,gke->gqe", weights_GxSxS.astype(v_GxSxE.dtype), v_GxSxE)


class Attention(nn.Module):
    """Self-attention on flattened tokens; positions say how N splits into batch × sequence.

    qk-norm: one normalization of the model's kind for queries and one for keys, over a head's width, scale shared by
    all heads (Wortsman et al. 2023, arXiv 2309.14322).
    """

    heads: int
    sequence: int
    rotary: bool
    qk_norm: str | None
    output_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NxD: Array) -> Array:
        tokens, width = x_NxD.shape
        batch, head_width = tokens // self.sequence, width // self.heads

        def heads(name: str) -> Array:
            y_NxD = dense(width, self.dtype, name)(x_NxD)
            y_BxSxHxE = y_NxD.reshape(batch, self.sequence, self.heads, head_width)
            return y_BxSxHxE.transpose(0, 2, 1, 3).reshape(batch * self.heads, self.sequence, head_width)

        q_GxSxE, k_GxSxE, v_GxSxE = heads("query"), heads("key"), heads("value")
        if self.qk_norm is not None:
            q_GxSxE = normalization(self.qk_norm, self.dtype, "query_norm")(q_GxSxE)
            k_GxSxE = normalization(self.qk_norm, self.dtype, "key_norm")(k_GxSxE)
        if self.rotary:
            q_GxSxE, k_GxSxE = rotate(q_GxSxE), rotate(k_GxSxE)
        y_GxSxE = causal_attention(q_GxSxE, k_GxSxE, v_GxSxE)
        y_BxSxHxE = y_GxSxE.reshape(batch, self.heads, self.sequence, head_width).transpose(0, 2, 1, 3)
        return dense(width, self.dtype, "output", self.output_scale)(y_BxSxHxE.reshape(tokens, width))
