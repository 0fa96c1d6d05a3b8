"""Attention against JAX's own, and its extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.models.attention import causal_attention


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_equals_dot_product_attention(dtype: str, tolerance: float) -> None:
    """In float64 JAX's own takes its softmax in float32: there the reference is numpy, in test_transformer.py."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 6, 9, 8)).astype(dtype)  # G, S, E; as batch 6 with 1 head
    ours_GxSxE = jax.jit(causal_attention)(q, k, v)
    own = jax.jit(functools.partial(jax.nn.dot_product_attention, is_causal=True))
    theirs_GxSxE = own(*(x[:, :, None] for x in (q, k, v)))[:, :, 0]
    assert ours_GxSxE.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.asarray(ours_GxSxE, np.float64), np.asarray(theirs_GxSxE, np.float64),
                               rtol=tolerance, atol=tolerance)


def test_first_position_sees_itself_alone_and_equal_keys_share_evenly() -> None:
    v_GxSxE = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    same_GxSxE = np.ones((2, 5, 4), np.float32)
    mean_GxSxE = np.cumsum(v_GxSxE, axis=1) / np.arange(1, 6)[None, :, None]
    np.testing.assert_allclose(jax.jit(causal_attention)(same_GxSxE, same_GxSxE, v_GxSxE), mean_GxSxE, atol=1e-6)


def test_huge_logits_stay_finite() -> None:
    q_GxSxE = 1e4 * np.random.default_rng(2).normal(size=(2, 5, 4)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda q: causal_attention(q, q, q).sum()))(q_GxSxE)
    assert np.isfinite(gradient).all()
