"""The product of dense layers against plain ones: values, gradients, dtypes, under vmap."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from scaling.models.dense import COPIED, product


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def plain(x_NxI: Array, w_IxO: Array) -> Array:
    return x_NxI @ w_IxO


def both_gradients(function: object, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    """A value that weighs every entry of the product differently, and its gradients."""
    def value(x: Array, w: Array) -> Array:
        y = function(x, w)
        return jnp.sum(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) * jnp.square(y))

    return jax.value_and_grad(value, argnums=(0, 1))(x, w)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 7), (7, 3), (4, 1), (COPIED, COPIED + 1), (COPIED + 1, COPIED)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("runs", [None, 4])
def test_gradients_are_those_of_a_plain_product(
    inputs: int, outputs: int, dtype: str, tolerance: float, runs: int | None,
) -> None:
    random, lanes = np.random.default_rng(0), () if runs is None else (runs,)
    x = jnp.asarray(random.normal(size=(*lanes, 6, inputs)), dtype)
    w = jnp.asarray(random.normal(size=(*lanes, inputs, outputs)), dtype)
    found, expected = (
        jax.jit(function if runs is None else jax.vmap(function))(x, w)
        for function in (lambda x, w: both_gradients(product, x, w), lambda x, w: both_gradients(plain, x, w)))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype == jnp.dtype(dtype)
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max(), rtol=0)
