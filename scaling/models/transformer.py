"""The decoder-only transformer. Letters: B batch, S sequence, N = B × S tokens, D width, V vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from scaling import config
from scaling.models.attention import Attention
from scaling.models.dense import dense, product
from scaling.models.feedforward import FeedForward
from scaling.models.normalization import Normalization
from scaling.models.running_norms import RunningNorm, Training

EMBEDDING_STD = 0.02


def norm_of(model: config.Model, dtype: jnp.dtype, training: Training, name: str) -> Normalization | RunningNorm:
    """A norm of the residual stream, to be called within a compact module."""
    if model.norm_warmup is not None:
        return RunningNorm(model.norm, model.norm_warmup, model.filter_outliers, training, dtype, name=name)
    return Normalization(model.norm, dtype, model.centred, name=name)


class Block(nn.Module):
    """A layer, numbered from 1: attention, then feed-forward, each with the norms that `placement` says."""

    config: config.Model
    layer: int
    sequence: int
    dtype: jnp.dtype
    training: Training = None

    @nn.compact
    def __call__(self, x_NxD: Array, begins_BxS: Array | None = None) -> Array:
        c = self.config
        output_scale = (2 * c.depth) ** -0.5 if c.depth_scaled_init else 1.0
        attention = Attention(
            kind=c.attention, heads=c.heads, features=c.stream, sequence=self.sequence, rotary=c.positions == "rotary",
            qk_norm=c.qk_norm_kind, centred=c.centred, output_scale=output_scale,
            logit_scale=c.head_width_ratio**-0.5, dtype=self.dtype, name="attention",
        )
        feedforward = FeedForward(c.hidden, c.stream, c.activation, c.centred, output_scale, self.dtype,
                                  name="feedforward")
        x_NxD = self.joined("attention", lambda h_NxD: attention(h_NxD, begins_BxS), x_NxD)
        return self.joined("feedforward", feedforward, x_NxD)

    def joined(self, name: str, sublayer: Callable[[Array], Array], x_NxD: Array) -> Array:
        """The residual stream after a sublayer."""
        norm = functools.partial(norm_of, self.config, self.dtype, self.training)
        placement = self.config.placement
        if placement == "post":
            return norm(f"{name}_norm")(x_NxD + sublayer(x_NxD))
        h_NxD = norm(f"{name}_norm")(x_NxD)
        if placement == "scaled":
            h_NxD = h_NxD * self.layer**-0.5
        y_NxD = sublayer(h_NxD)
        if placement == "peri":
            y_NxD = norm(f"{name}_output_norm")(y_NxD)
        return x_NxD + y_NxD


class Transformer(nn.Module):
    """Next-token logits: tokens_BxS -> logits_NxV, in at least float32.

    With `begins_BxS`, the position at which the document of each position begins, every document of a window has the
    logits that it would have alone. `training` is read by norms of batch statistics alone.
    """

    config: config.Model
    vocabulary: int
    dtype: jnp.dtype
    training: Training = None

    @nn.compact
    def __call__(self, tokens_BxS: Array, begins_BxS: Array | None = None) -> Array:
        c, (batch, sequence) = self.config, tokens_BxS.shape
        param_dtype = jnp.promote_types(self.dtype, jnp.float32)
        init = nn.initializers.normal(EMBEDDING_STD)
        embed = nn.Embed(self.vocabulary, c.stream, dtype=self.dtype, param_dtype=param_dtype, embedding_init=init,
                         name="embedding")
        x_NxD = embed(tokens_BxS.reshape(batch * sequence))
        if c.positions == "learned":
            positions_SxD = self.param("positions", init, (sequence, c.stream), param_dtype)
            if begins_BxS is None:
                positions_NxD = jnp.tile(positions_SxD, (batch, 1))
            else:
                places_BxS = jnp.arange(sequence, dtype=begins_BxS.dtype)[None, :] - begins_BxS
                positions_NxD = positions_SxD[places_BxS.reshape(-1)]
            x_NxD = x_NxD + positions_NxD.astype(self.dtype)
        if c.centred:
            x_NxD = x_NxD - jnp.mean(x_NxD, axis=-1, keepdims=True)
        norm = functools.partial(norm_of, c, self.dtype, self.training)
        if c.placement == "peri":
            x_NxD = norm("embedding_norm")(x_NxD)
        for layer in range(c.depth):
            x_NxD = Block(c, layer + 1, sequence, self.dtype, self.training, name=f"block_{layer}")(x_NxD, begins_BxS)
        if c.placement != "post":
            x_NxD = norm("final_norm")(x_NxD)
        x_NxD = x_NxD / c.width_ratio
        if c.tied_head:
            logits_NxV = product(x_NxD.astype(self.dtype), embed.embedding.astype(self.dtype).T)
        else:
            logits_NxV = dense(x_NxD, self.vocabulary, self.dtype, "head", c.width_ratio**0.5)
        return logits_NxV.astype(param_dtype)
