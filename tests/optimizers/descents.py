"""Given gradients run through an optimizer, in float64 and compiled, and matrices in the layout of papers."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def trajectory(method: optax.GradientTransformation, params: Any, gradients: Iterable[Any]) -> tuple[list[Any], Any]:
    """Parameters after each update, as numpy arrays, and the last state."""
    @jax.jit
    def update(gradient: Any, state: Any, params: Any) -> Any:
        updates, state = method.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    with jax.enable_x64(True):
        state, found = method.init(jax.tree.map(jnp.asarray, params)), []
        for gradient in gradients:
            params, state = update(gradient, state, params)
            found.append(jax.tree.map(np.asarray, params))
    return found, jax.tree.map(np.asarray, state)


def scalars(*values: float) -> list[dict[str, np.ndarray]]:
    """Trees with one number each."""
    return [{"kernel": np.array(value)} for value in values]


def kernels(*matrices: Any) -> list[dict[str, np.ndarray]]:
    """Kernels of a layer, inputs × outputs, from matrices whose rows are outputs."""
    return [{"kernel": np.array(matrix, float).T} for matrix in matrices]
