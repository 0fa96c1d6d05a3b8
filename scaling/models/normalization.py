"""Normalization layers, by name."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

EPSILON = 1e-6


def normalization(kind: str, dtype: jnp.dtype, name: str) -> nn.Module:
    """LayerNorm (scale and bias) or RMSNorm (scale), over the last axis, statistics in at least float32."""
    layer = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}[kind]
    return layer(epsilon=EPSILON, dtype=dtype, param_dtype=jnp.promote_types(dtype, jnp.float32), name=name)
