"""Normalization against flax's layers of the same names."""

from __future__ import annotations

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from scaling.models.normalization import EPSILON, Normalization

FLAX = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("kind", list(FLAX))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_equals_flax(kind: str, dtype: str, tolerance: float, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(2.0, 3.0, size=shape), dtype)
    stored = jnp.promote_types(dtype, jnp.float32)
    ours = Normalization(kind, jnp.dtype(dtype))
    theirs = FLAX[kind](epsilon=EPSILON, dtype=dtype, param_dtype=stored)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype),
                          ours.init(jax.random.key(0), x))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(0), x))

    def weighed(module: nn.Module, params: dict, x: Array) -> Array:
        y = module.apply(params, x)
        return jnp.sum(jnp.sin(jnp.arange(y.size)).reshape(y.shape) * y.astype(stored)), y

    found, expected = (jax.jit(jax.value_and_grad(lambda p, x, m=m: weighed(m, p, x), argnums=(0, 1), has_aux=True))(
        params, x) for m in (ours, theirs))
    assert found[0][1].dtype == jnp.dtype(dtype)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, np.abs(b).max()), rtol=0)


@pytest.mark.parametrize("kind", list(FLAX))
def test_fresh_scale_is_one_and_bias_zero(kind: str) -> None:
    params = Normalization(kind, jnp.dtype("float32")).init(jax.random.key(0), jnp.ones((2, 4)))["params"]
    assert set(params) == ({"scale", "bias"} if kind == "layernorm" else {"scale"})
    np.testing.assert_array_equal(params["scale"], np.ones(4))
    np.testing.assert_array_equal(params.get("bias", np.zeros(4)), np.zeros(4))
