"""The position-wise feed-forward part of a block."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from scaling.models.dense import dense


def relu2(x: Array) -> Array:
    """Squared ReLU, max(x, 0)² (So et al. 2021, arXiv 2109.08668)."""
    return jnp.square(jax.nn.relu(x))


class FeedForward(nn.Module):
    """down(act(up x)), or down(silu(gate x) ⊙ up x) for swiglu (Shazeer 2020, arXiv 2002.05202).

    `features`: width of the residual stream, which `centred` keeps at mean zero.
    """

    hidden: int
    features: int
    activation: str
    centred: bool
    output_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_NxD: Array) -> Array:
        up_NxF = dense(x_NxD, self.hidden, self.dtype, "up")
        if self.activation == "swiglu":
            act_NxF = jax.nn.silu(dense(x_NxD, self.hidden, self.dtype, "gate")) * up_NxF
        else:
            act_NxF = {"gelu": jax.nn.gelu, "relu2": relu2}[self.activation](up_NxF)
        return dense(act_NxF, self.features, self.dtype, "down", self.output_scale, self.centred)
