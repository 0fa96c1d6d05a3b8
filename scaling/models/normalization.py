"""Normalization layers whose output depends on one token alone, by name; those with memory are in running_norms.py."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

EPSILON = 1e-6


def rms(x: Array, epsilon: float = EPSILON) -> Array:
    """x / √(mean x² + ε) over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return x * _inverse_rms(x, epsilon)


def _inverse_rms(x: Array, epsilon: float) -> Array:
    return lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


@jax.custom_vjp
def scaled_rms(x: Array, scale: Array) -> Array:
    """rms(x) ⊙ scale, scale [1, ..., 1, D]. The sums of its gradient are products of a matrix and a vector, on which
    CPUs spend less time than on reductions.
    """
    return _scaled_forward(x, scale)[0]


def _scaled_forward(x: Array, scale: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    inverse = _inverse_rms(x, EPSILON)
    return x * inverse * scale, (x, scale, inverse)


def _scaled_backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array]:
    """With r = 1 / √(mean x² + ε): dx = r (dy ⊙ s - x r² Σ(x ⊙ dy ⊙ s) / D), ds = Σ r x ⊙ dy over all but D."""
    x, scale, inverse = saved
    width = x.shape[-1]
    product_NxD = lax.optimization_barrier(x * dy).reshape(-1, width)
    exact = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    along = exact(product_NxD, scale.reshape(width)).reshape(inverse.shape)
    dscale = exact(inverse.reshape(1, -1), product_NxD).reshape(scale.shape)
    return inverse * (dy * scale - x * (inverse**2 * along / width)), dscale


scaled_rms.defvjp(_scaled_forward, _scaled_backward)


def compressed_rms(c: Array) -> Array:
    """RMS normalization of a vector of mean zero stored without its last entry: c / √((Σ c² + (Σ c)²) / d + ε).

    c[..., d - 1], and so is the result (Jiang et al. 2023, arXiv 2305.14858).
    """
    total = jnp.sum(c, axis=-1, keepdims=True)
    squares = jnp.sum(jnp.square(c), axis=-1, keepdims=True) + jnp.square(total)
    return c * lax.rsqrt(squares / (c.shape[-1] + 1) + EPSILON)


def expanded(c: Array) -> Array:
    """The vector of mean zero whose entries but the last are c: [..., d - 1] -> [..., d]."""
    return jnp.concatenate([c, -jnp.sum(c, axis=-1, keepdims=True)], axis=-1)


class Normalization(nn.Module):
    """Over the last axis, statistics in at least float32, as flax's layers of the same names to rounding.

    rmsnorm: x / √(mean x² + ε) · scale (1910.07467), plus bias where `biased`. layernorm: the same of x - mean x, plus
    bias (Ba et al. 2016, arXiv 1607.06450). crmsnorm: of x without its last entry, which has mean zero; the result is
    whole, and has scale and bias as layernorm's: the paper folds all three into the kernels that read it, which takes
    biases that ours do not have (2305.14858). Each factor multiplies x by itself: flax first spreads their product
    over all of x, which costs CPUs a pass over memory.
    """

    kind: str
    dtype: jnp.dtype
    biased: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        width = x.shape[-1] + (self.kind == "crmsnorm")
        last = (1,) * (x.ndim - 1) + (width,)
        scale = self.param("scale", nn.initializers.ones, last[-1:], dtype).reshape(last)
        x = x.astype(dtype)
        if self.kind == "layernorm":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        y = expanded(compressed_rms(x)) * scale if self.kind == "crmsnorm" else scaled_rms(x, scale)
        if self.biased or self.kind in ("layernorm", "crmsnorm"):
            y = y + self.param("bias", nn.initializers.zeros, last[-1:], dtype).reshape(last)
        return y.astype(self.dtype)
