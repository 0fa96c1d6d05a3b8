"""Layca, layer-wise control of the amount of rotation, and the rotation itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import widened


def layca(inner: optax.GradientTransformation, learning_rate: Any) -> optax.GradientTransformation:
    """Every kernel turns by arctan η a step and keeps its norm: p ← ‖p‖ q / ‖q‖, q = p - η ‖p‖ s / ‖s‖.

    s: the step of `inner`, which knows no rate and is subtracted (optax.trace, optax.scale_by_adam), less its part
    along p. No move where nothing but rounding is left of s, and of a kernel that is zero. What is not a kernel is
    frozen. Carbonnelle & De Vleeschouwer 2018, arXiv 1806.01603. Differs: the authors' Keras code compares ‖s‖ with
    1e-7, their PyTorch code with nothing; ours with the step's own length, so that its scale never matters.
    """
    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        steps, state = inner.update(gradients, state, params)

        def one(path: tuple, p: Array, step: Array) -> Array:
            return _turned(p, step, learning_rate) - p if _is_kernel(path) else jnp.zeros_like(p)

        return jax.tree_util.tree_map_with_path(one, params, steps), state

    return widened(optax.GradientTransformation(inner.init, update))


def rotation(params: Any, initial: Any) -> dict[str, Array]:
    """Layer rotation of each kernel by its path: 1 - cos(p_t, p_0), from 0 to 2; NaN where one of them is zero.

    As ½ ‖p̂_t - p̂_0‖², which does not cancel at small angles. Carbonnelle & De Vleeschouwer 2018, arXiv 1806.01603.
    """
    found = {}
    then = jax.tree.leaves(initial)
    for (path, now), before in zip(jax.tree_util.tree_leaves_with_path(params), then, strict=True):
        if _is_kernel(path):
            p, q = (jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32)) for x in (now, before))
            name = "/".join(key.key for key in path)
            found[name] = 0.5 * jnp.sum((p / _norm(p) - q / _norm(q)) ** 2)
    return found


def _is_kernel(path: tuple) -> bool:
    return bool(path) and getattr(path[-1], "key", None) == "kernel"


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x**2))


def _turned(p: Array, step: Array, learning_rate: Any) -> Array:
    norm, length = _norm(p), _norm(step)
    tangent = step - jnp.sum(step * p) / jnp.where(norm == 0, 1, norm**2) * p
    left = _norm(tangent)
    moves = (norm > 0) & (left > 16 * jnp.finfo(p.dtype).eps * length)
    moved = p - learning_rate * tangent * jnp.where(moves, norm / jnp.where(moves, left, 1), 0)
    return jnp.where(moves, moved * norm / jnp.where(moves, _norm(moved), 1), p)
