"""Causal multi-head self-attention as plain batched products over G = batch × heads."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from scaling.models.dense import Kernel, dense, product
from scaling.models.normalization import Normalization
from scaling.models.positions import rotate
from scaling.models.softplus import queries_and_keys, softplus_weights

BLOCK, MOST_BLOCKS = 64, 2  # positions a block of queries holds at least, blocks at most: measured on CPU


def causal_attention(
    q_GxSxE: Array, k_GxSxE: Array, v_GxSxE: Array, begins_GxS: Array | None = None, kind: str = "softmax",
) -> Array:
    """softmax(q kᵀ / √E + causal mask) v; softmax in at least float32. With `begins`, from that key on only.

    `kind` lssa or lssar: the weights of scaling/models/softplus.py in place of softmax, q and k over their lengths.
    Block by block of queries, each against the keys up to its own end: the rest of S × S is never computed.
    """
    positions, head_width = q_GxSxE.shape[1:]
    if kind == "softmax":
        q_GxSxE = q_GxSxE * head_width**-0.5
    else:
        q_GxSxE, k_GxSxE = queries_and_keys(q_GxSxE, k_GxSxE)
    size = max(BLOCK, -(-positions // MOST_BLOCKS))
    starts = list(range(0, positions, size))
    queries = jnp.split(q_GxSxE, starts[1:], axis=1)
    begins = [None] * len(starts) if begins_GxS is None else jnp.split(begins_GxS, starts[1:], axis=1)
    blocks = [_block(q_GxQxE, k_GxSxE[:, :start + size], v_GxSxE[:, :start + size], begins_GxQ, kind)
              for start, q_GxQxE, begins_GxQ in zip(starts, queries, begins, strict=True)]
    return jnp.concatenate(blocks, axis=1)


def _block(q_GxQxE: Array, k_GxKxE: Array, v_GxKxE: Array, begins_GxQ: Array | None, kind: str) -> Array:
    """Attention of the last Q of K positions. The sum of the weights divides Q × E products, not Q × K weights."""
    dtype = jnp.promote_types(q_GxQxE.dtype, jnp.float32)
    queries, keys = q_GxQxE.shape[1], k_GxKxE.shape[1]
    mask_GxQxK = jnp.tril(jnp.ones((1, queries, keys), bool), keys - queries)
    if begins_GxQ is not None:  # on CPU cheaper than to compare whose documents they are: measured
        mask_GxQxK &= jnp.arange(keys, dtype=begins_GxQ.dtype)[None, None, :] >= begins_GxQ[:, :, None]
    scores_GxQxK = _scores(q_GxQxE, k_GxKxE).astype(dtype)
    if kind == "softmax":
        logits_GxQxK = jnp.where(mask_GxQxK, scores_GxQxK, jnp.finfo(dtype).min)
        weights_GxQxK = jnp.exp(logits_GxQxK - lax.stop_gradient(jnp.max(logits_GxQxK, axis=-1, keepdims=True)))
        total_GxQx1 = jnp.sum(weights_GxQxK, axis=-1, keepdims=True)
    else:
        weights_GxQxK, total_GxQx1 = softplus_weights(scores_GxQxK, mask_GxQxK, reweighted=kind == "lssar")
    return (_mix(weights_GxQxK.astype(v_GxKxE.dtype), v_GxKxE) / total_GxQx1).astype(v_GxKxE.dtype)


@jax.custom_vjp
def _scores(q_GxQxE: Array, k_GxKxE: Array) -> Array:
    return jnp.einsum("gqe,gke->gqk", q_GxQxE, k_GxKxE)


@jax.custom_vjp
def _mix(weights_GxQxK: Array, v_GxKxE: Array) -> Array:
    return jnp.einsum("gqk,gke->gqe", weights_GxQxK, v_GxKxE)


def _over_queries(x_GxQxK: Array, y_GxQxE: Array) -> Array:
    """xᵀ y as (yᵀ x)ᵀ: CPUs take twice as long for a tall result. The barriers keep XLA from turning it round again."""
    y_GxExQ = lax.optimization_barrier(y_GxQxE.swapaxes(1, 2))
    return lax.optimization_barrier(jnp.einsum("geq,gqk->gek", y_GxExQ, x_GxQxK)).swapaxes(1, 2)


def _scores_backward(saved: tuple[Array, Array], ds_GxQxK: Array) -> tuple[Array, Array]:
    q_GxQxE, k_GxKxE = saved
    return _mix(ds_GxQxK, k_GxKxE), _over_queries(ds_GxQxK, q_GxQxE)


def _mix_backward(saved: tuple[Array, Array], dy_GxQxE: Array) -> tuple[Array, Array]:
    weights_GxQxK, v_GxKxE = saved
    return _scores(dy_GxQxE, v_GxKxE), _over_queries(weights_GxQxK, dy_GxQxE)


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_backward)
_mix.defvjp(lambda weights, v: (_mix(weights, v), (weights, v)), _mix_backward)


def _by_head(y_NxD: Array, sequence: int, heads: int) -> Array:
    """[N, D] -> [G, S, E]. One array at a time: of three transposed together CPUs pad and add the gradients."""
    y_BxSxHxE = y_NxD.reshape(-1, sequence, heads, y_NxD.shape[1] // heads)
    return y_BxSxHxE.transpose(0, 2, 1, 3).reshape(-1, sequence, y_BxSxHxE.shape[-1])


class Attention(nn.Module):
    """Self-attention on flattened tokens; positions say how N splits into batch × sequence.

    qk-norm: one normalization of the model's kind for queries and one for keys, over a head's width, scale shared by
    all heads (Wortsman et al. 2023, arXiv 2309.14322). `logit_scale`: factor of the logits beside 1/√E, which lssa and
    lssar do not see. `features`: width of the residual stream, which `centred` keeps at mean zero.
    """

    kind: str
    heads: int
    features: int
    sequence: int
    rotary: bool
    qk_norm: str | None
    centred: bool
    output_scale: float
    logit_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NxD: Array, begins_BxS: Array | None = None) -> Array:
        tokens, width = x_NxD.shape
        batch, head_width = tokens // self.sequence, width // self.heads
        kernels = [Kernel(width, self.dtype, name=name)(width) for name in ("query", "key", "value")]
        y_Nx3D = product(x_NxD.astype(self.dtype), jnp.concatenate(kernels, axis=1))  # one product is faster than three
        q_GxSxE, k_GxSxE, v_GxSxE = (_by_head(y_NxD, self.sequence, self.heads)
                                     for y_NxD in jnp.split(y_Nx3D, 3, axis=1))
        if self.qk_norm is not None:
            q_GxSxE = Normalization(self.qk_norm, self.dtype, name="query_norm")(q_GxSxE)
            k_GxSxE = Normalization(self.qk_norm, self.dtype, name="key_norm")(k_GxSxE)
        if self.rotary:
            q_GxSxE, k_GxSxE = rotate(q_GxSxE), rotate(k_GxSxE)
        q_GxSxE = q_GxSxE * self.logit_scale
        begins_GxS = None if begins_BxS is None else jnp.repeat(begins_BxS, self.heads, axis=0)
        y_GxSxE = self.attend(q_GxSxE, k_GxSxE, v_GxSxE, begins_GxS)
        y_BxSxHxE = y_GxSxE.reshape(batch, self.heads, self.sequence, head_width).transpose(0, 2, 1, 3)
        return dense(y_BxSxHxE.reshape(tokens, width), self.features, self.dtype, "output", self.output_scale,
                     self.centred)

    def attend(self, q_GxSxE: Array, k_GxSxE: Array, v_GxSxE: Array, begins_GxS: Array | None) -> Array:
        """Attention of queries and keys as they act: a method, so that diagnostics can see them."""
        return causal_attention(q_GxSxE, k_GxSxE, v_GxSxE, begins_GxS, self.kind)
