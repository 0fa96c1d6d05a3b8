"""Attention against JAX's own, and its extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.models import attention
from scaling.models.attention import BLOCK, MOST_BLOCKS, causal_attention


@pytest.mark.parametrize("positions", [1, 9, BLOCK, BLOCK + 8, MOST_BLOCKS * BLOCK, MOST_BLOCKS * BLOCK + 11])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_equals_dot_product_attention(positions: int, dtype: str, tolerance: float) -> None:
    """In float64 JAX's own takes its softmax in float32: there the reference is numpy, in test_transformer.py."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 6, positions, 8)).astype(dtype)  # G, S, E; 1 head, batch 6
    ours_GxSxE = jax.jit(causal_attention)(q, k, v)
    own = jax.jit(functools.partial(jax.nn.dot_product_attention, is_causal=True))
    theirs_GxSxE = own(*(x[:, :, None] for x in (q, k, v)))[:, :, 0]
    assert ours_GxSxE.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.asarray(ours_GxSxE, np.float64), np.asarray(theirs_GxSxE, np.float64),
                               rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("positions", [9, BLOCK + 8, MOST_BLOCKS * BLOCK + 11])
def test_gradients_equal_those_of_dot_product_attention(positions: int) -> None:
    q, k, v, weights_GxSxE = np.random.default_rng(0).normal(size=(4, 6, positions, 8)).astype(np.float32)

    def theirs(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(*(x[:, :, None] for x in (q, k, v)), is_causal=True)[:, :, 0]

    for found, expected in zip(*(
        jax.jit(jax.grad(lambda *qkv, own=own: jnp.sum(weights_GxSxE * own(*qkv)), argnums=(0, 1, 2)))(q, k, v)
        for own in (causal_attention, theirs)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_blocks_of_queries_leave_out_what_lies_wholly_ahead_of_them() -> None:
    """Of M x M blocks of S x S, M (M + 1) / 2 are computed."""
    shape = jax.ShapeDtypeStruct((4, MOST_BLOCKS * BLOCK, 64), jnp.float32)

    def products(most_blocks: int, monkeypatch: pytest.MonkeyPatch) -> float:
        monkeypatch.setattr(attention, "MOST_BLOCKS", most_blocks)
        return jax.jit(lambda q, k, v: attention.causal_attention(q, k, v)).lower(shape, shape, shape).cost_analysis()[
            "flops"]

    with pytest.MonkeyPatch.context() as monkeypatch:
        share = products(MOST_BLOCKS, monkeypatch) / products(1, monkeypatch)
    assert share == pytest.approx((MOST_BLOCKS + 1) / (2 * MOST_BLOCKS), rel=0.02)


def test_first_position_sees_itself_alone_and_equal_keys_share_evenly() -> None:
    v_GxSxE = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    same_GxSxE = np.ones((2, 5, 4), np.float32)
    mean_GxSxE = np.cumsum(v_GxSxE, axis=1) / np.arange(1, 6)[None, :, None]
    np.testing.assert_allclose(jax.jit(causal_attention)(same_GxSxE, same_GxSxE, v_GxSxE), mean_GxSxE, atol=1e-6)


def test_huge_logits_stay_finite() -> None:
    q_GxSxE = 1e4 * np.random.default_rng(2).normal(size=(2, 5, 4)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda q: causal_attention(q, q, q).sum()))(q_GxSxE)
    assert np.isfinite(gradient).all()
