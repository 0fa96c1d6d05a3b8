"""The dense layer of every block: a plain matrix product on tokens flattened to two dimensions."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp


def dense(features: int, dtype: jnp.dtype, name: str, scale: float = 1.0) -> nn.Dense:
    """x_NxI @ kernel_IxO, no bias; kernel ~ Normal(0, scale² / I), stored in at least float32.

    N is batch × position flattened: on CPU the same product on three-dimensional activations takes three times longer.
    """
    init = nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
    param_dtype = jnp.promote_types(dtype, jnp.float32)
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, param_dtype=param_dtype, name=name)
