"""Normalization layers, by name."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

EPSILON = 1e-6


class Normalization(nn.Module):
    """Over the last axis, statistics in at least float32, as flax's layers of the same names to rounding.

    rmsnorm: x / √(mean x² + ε) · scale (Zhang & Sennrich 2019, arXiv 1910.07467). layernorm: the same of x - mean x,
    plus bias (Ba et al. 2016, arXiv 1607.06450). Each factor multiplies x by itself: flax first spreads their product
    over all of x, which costs CPUs a pass over memory.
    """

    kind: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        last = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, last[-1:], dtype).reshape(last)
        x = x.astype(dtype)
        if self.kind == "layernorm":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        y = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON) * scale
        if self.kind == "layernorm":
            y = y + self.param("bias", nn.initializers.zeros, last[-1:], dtype).reshape(last)
        return y.astype(self.dtype)
