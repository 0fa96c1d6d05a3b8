"""AdamP and SGDP: steps on weights before a normalization lose their radial part, which only lengthens the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import Mask, decaying, widened

TABLES = ("embedding", "positions")  # the rows of a table are its units; those of a kernel lie along its last axis
Axes = tuple[int, ...]


def adamp(learning_rate: Any, b1: Any, b2: Any, eps: Any, weight_decay: Any, delta: Any, decay_ratio: Any,
          mask: Mask = None) -> optax.GradientTransformation:
    """AdamP: p -= η (λ r p + Π u), u = m̂ / (√v̂ + ε) of Adam; Π and r by the view that `views` finds.

    A view accepted: Π takes ⟨p̂_i, u_i⟩ p̂_i, p̂_i = p_i / (‖p_i‖ + ε), from every row, and r = `decay_ratio`.
    None: Π = 1, r = 1. δ = 0 accepts none: AdamW. Heo et al. 2021, arXiv 2006.08217, whose code this follows but for
    the units of a Flax kernel, along its last axis, and a cosine without ε, 0 where a row is zero.
    """
    return _projected(optax.scale_by_adam(b1, b2, eps), learning_rate, weight_decay, eps, delta, decay_ratio, mask)


def sgdp(learning_rate: Any, momentum: Any, nesterov: bool, eps: Any, weight_decay: Any, delta: Any, decay_ratio: Any,
         mask: Mask = None) -> optax.GradientTransformation:
    """SGDP: p -= η (λ r p / (1-μ) + Π u), b = μ b + g, u = b or, with `nesterov`, g + μ b; Π and r as in `adamp`.

    δ = 0: SGD with decoupled decay. Heo et al. 2021, arXiv 2006.08217, the authors' code; μ in [0, 1).
    """
    return _projected(optax.trace(momentum, nesterov), learning_rate, weight_decay / (1 - momentum), eps, delta,
                      decay_ratio, mask)


def views(params: Any, gradients: Any, delta: Any) -> Any:
    """View in which each tensor's step is projected, int32 scalars like the parameters: 0 none, 1 channel, 2 layer.

    The first of rows p_i = the weights of a unit, then the whole tensor as one row, where
    max_i |cos(p_i, g_i)| < δ / √n, n numbers a row: there the loss does not depend on ‖p_i‖. Vectors: none.
    """
    def view(path: tuple, p: Array, g: Array) -> Array:
        channel, layer = _rows(path, p)
        if p.ndim < 2:
            return jnp.int32(0)
        return jnp.where(_invariant(p, g, channel, delta), 1, jnp.where(_invariant(p, g, layer, delta), 2, 0)).astype(
            jnp.int32)

    return jax.tree_util.tree_map_with_path(view, params, gradients)


def _projected(inner: optax.GradientTransformation, learning_rate: Any, weight_decay: Any, eps: Any, delta: Any,
               decay_ratio: Any, mask: Mask) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        steps, state = inner.update(gradients, state, params)

        def one(path: tuple, p: Array, u: Array, view: Array, decays: bool) -> Array:
            channel, layer = _rows(path, p)
            tangent = jnp.where(view == 1, _tangent(u, p, channel, eps), _tangent(u, p, layer, eps))
            step = jnp.where(view > 0, tangent, u)
            return -learning_rate * (step + weight_decay * decays * jnp.where(view > 0, decay_ratio, 1) * p)

        updates = jax.tree_util.tree_map_with_path(one, params, steps, views(params, gradients, delta),
                                                   decaying(mask, params))
        return updates, state

    return widened(optax.GradientTransformation(inner.init, update))


def _rows(path: tuple, p: Array) -> tuple[Axes, Axes]:
    """The axes along which a row runs, in the channel view and in the layer view."""
    every = tuple(range(p.ndim))
    table = bool(path) and getattr(path[-1], "key", None) in TABLES
    return (every[1:] if table else every[:-1]), every


def _norm(x: Array, row: Axes) -> Array:
    return jnp.sqrt(jnp.sum(x**2, row, keepdims=True))


def _invariant(p: Array, g: Array, row: Axes, delta: Any) -> Array:
    """Whether every row's gradient is orthogonal to it, as that of a scale-invariant loss is."""
    along, lengths = jnp.sum(p * g, row, keepdims=True), _norm(p, row) * _norm(g, row)
    cosines = jnp.abs(along) / jnp.where(lengths == 0, 1, lengths)
    n = p.size // along.size
    return jnp.max(cosines) < delta / n**0.5


def _tangent(u: Array, p: Array, row: Axes, eps: Any) -> Array:
    unit = p / (_norm(p, row) + eps)
    return u - jnp.sum(unit * u, row, keepdims=True) * unit
