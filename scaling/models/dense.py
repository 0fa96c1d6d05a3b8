"""The dense layer of every block: a plain matrix product on tokens flattened to two dimensions.

N is batch × position flattened: on CPU the same product on three-dimensional activations takes three times longer.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

COPIED = 64  # inputs and features from which on the narrower factor is transposed by a copy: measured on CPU


@jax.custom_vjp
def product(x_NxI: Array, w_IxO: Array) -> Array:
    """x @ w. The gradient of w is the wider of xᵀ dy and (dyᵀ x)ᵀ: CPUs take twice as long for a tall result.

    Without a copy of the transposed factor CPUs leave the product to threads that all devices share; for small kernels
    that is still faster. The barriers keep XLA from turning the product round again.
    """
    return x_NxI @ w_IxO


def _forward(x_NxI: Array, w_IxO: Array) -> tuple[Array, tuple[Array, Array]]:
    return x_NxI @ w_IxO, (x_NxI, w_IxO)


def _backward(saved: tuple[Array, Array], dy_NxO: Array) -> tuple[Array, Array]:
    x_NxI, w_IxO = saved
    wide = w_IxO.shape[0] <= w_IxO.shape[1]
    narrow, broad = (x_NxI, dy_NxO) if wide else (dy_NxO, x_NxI)
    turned = lax.optimization_barrier(narrow.T) if min(w_IxO.shape) >= COPIED else narrow.T
    dw = lax.optimization_barrier(turned @ broad)
    return dy_NxO @ w_IxO.T, dw if wide else dw.T


product.defvjp(_forward, _backward)


class Kernel(nn.Module):
    """A kernel of shape [inputs, features] in `dtype`, ~ Normal(0, scale² / inputs), stored in at least float32.

    `centred`: less the mean of each row, on every call, so that outputs have mean zero (2305.14858).
    """

    features: int
    dtype: jnp.dtype
    scale: float = 1.0
    centred: bool = False

    @nn.compact
    def __call__(self, inputs: int) -> Array:
        init = nn.initializers.variance_scaling(self.scale**2, "fan_in", "normal")
        param_dtype = jnp.promote_types(self.dtype, jnp.float32)
        kernel_IxO = self.param("kernel", init, (inputs, self.features), param_dtype)
        if self.centred:
            kernel_IxO = kernel_IxO - jnp.mean(kernel_IxO, axis=-1, keepdims=True)
        return kernel_IxO.astype(self.dtype)


def dense(
    x_NxI: Array, features: int, dtype: jnp.dtype, name: str, scale: float = 1.0, centred: bool = False,
) -> Array:
    """x @ kernel, no bias; to be called within a compact module, whose parameter `name`/kernel it is."""
    return product(x_NxI.astype(dtype), Kernel(features, dtype, scale, centred, name=name)(x_NxI.shape[-1]))
