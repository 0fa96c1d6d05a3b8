"""The decoder-only transformer. Letters: B batch, S sequence, N = B × S tokens, D width, V vocabulary."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from scaling import config
from scaling.models.attention import Attention
from scaling.models.dense import dense, product
from scaling.models.feedforward import FeedForward
from scaling.models.normalization import Normalization

EMBEDDING_STD = 0.02


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)); output kernels scaled by 1/√(2 depth) as in GPT-2."""

    config: config.Model
    sequence: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NxD: Array, begins_BxS: Array | None = None) -> Array:
        c = self.config
        output_scale = (2 * c.depth) ** -0.5
        h_NxD = Normalization(c.norm, self.dtype, name="attention_norm")(x_NxD)
        x_NxD = x_NxD + Attention(
            heads=c.heads, sequence=self.sequence, rotary=c.positions == "rotary",
            qk_norm=c.norm if c.qk_norm else None, output_scale=output_scale, dtype=self.dtype, name="attention",
        )(h_NxD, begins_BxS)
        h_NxD = Normalization(c.norm, self.dtype, name="feedforward_norm")(x_NxD)
        return x_NxD + FeedForward(c.hidden, c.activation, output_scale, self.dtype, name="feedforward")(h_NxD)


class Transformer(nn.Module):
    """Next-token logits of pre-norm blocks: tokens_BxS -> logits_NxV, in at least float32.

    With `begins_BxS`, the position at which the document of each position begins, every document of a window has the
    logits that it would have alone.
    """

    config: config.Model
    vocabulary: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens_BxS: Array, begins_BxS: Array | None = None) -> Array:
        c, (batch, sequence) = self.config, tokens_BxS.shape
        param_dtype = jnp.promote_types(self.dtype, jnp.float32)
        init = nn.initializers.normal(EMBEDDING_STD)
        embed = nn.Embed(self.vocabulary, c.width, dtype=self.dtype, param_dtype=param_dtype, embedding_init=init,
                         name="embedding")
        x_NxD = embed(tokens_BxS.reshape(batch * sequence))
        if c.positions == "learned":
            positions_SxD = self.param("positions", init, (sequence, c.width), param_dtype)
            if begins_BxS is None:
                positions_NxD = jnp.tile(positions_SxD, (batch, 1))
            else:
                places_BxS = jnp.arange(sequence, dtype=begins_BxS.dtype)[None, :] - begins_BxS
                positions_NxD = positions_SxD[places_BxS.reshape(-1)]
            x_NxD = x_NxD + positions_NxD.astype(self.dtype)
        for layer in range(c.depth):
            x_NxD = Block(c, sequence, self.dtype, name=f"block_{layer}")(x_NxD, begins_BxS)
        x_NxD = Normalization(c.norm, self.dtype, name="final_norm")(x_NxD)
        if c.tied_head:
            logits_NxV = product(x_NxD.astype(self.dtype), embed.embedding.astype(self.dtype).T)
        else:
            logits_NxV = dense(x_NxD, self.vocabulary, self.dtype, "head")
        return logits_NxV.astype(param_dtype)
