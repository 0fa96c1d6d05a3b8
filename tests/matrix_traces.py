"""Runs of one matrix through an optimizer in float64, for the tests of the matrix methods."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPES = ((3, 5), (5, 3), (4, 4))  # as Flax stores kernels: (inputs, outputs)


class Trace(NamedTuple):
    values: list[np.ndarray]  # parameters after each update
    states: list[Any]  # of the one matrix


def trace(optimizer: optax.GradientTransformation, start: np.ndarray, gradients: list[np.ndarray],
          dtype: str = "float64") -> Trace:
    """Every update compiled, one matrix as the only parameter."""
    with jax.enable_x64(True):
        update = jax.jit(optimizer.update)
        params, found = {"kernel": jnp.asarray(start, dtype)}, Trace([], [])
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = update({"kernel": jnp.asarray(gradient, dtype)}, state, params)
            params = optax.apply_updates(params, updates)
            found.values.append(np.asarray(params["kernel"]))
            found.states.append(jax.tree.map(np.asarray, getattr(state, "matrices", {"kernel": None})["kernel"]))
    return found


def random_run(shape: tuple[int, int], steps: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """A start and as many gradients, all standard normal."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape), list(generator.normal(size=(steps, *shape)))


def same_up_to_signs(found: np.ndarray, expected: np.ndarray) -> None:
    """Columns agree but for their signs."""
    signs = np.sign(np.sum(found * expected, axis=0, keepdims=True))
    np.testing.assert_allclose(found, expected * signs, atol=1e-10)
