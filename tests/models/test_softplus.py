"""Softplus attention: the weights of one small case by hand, numpy, rows of nothing, long rows, packed documents."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax import Array

from helpers import small_run
from numpy_model import attention_weights
from scaling.fields import ConfigError
from scaling.models.attention import causal_attention

KINDS = ("lssa", "lssar")


def attend(kind: str) -> Callable[..., Array]:
    return jax.jit(functools.partial(causal_attention, kind=kind))


@pytest.mark.parametrize(("kind", "expected"), [
    ("lssa", [[1, 0, 0, 0], [0.458868, 0.541132, 0, 0], [0.183204, 0.362120, 0.454676, 0],
              [0.167515, 0.167515, 0.167515, 0.497456]]),
    ("lssar", [[1, 0, 0, 0], [0.077737, 0.922263, 0, 0], [1e-6, 0.031856, 0.968143, 0], [0, 0, 0, 1]]),
])
def test_weights_of_four_keys(kind: str, expected: list) -> None:
    """Keys and queries of directions e1, e1 + e2, e2, e3 and of any length; values e1 to e4 show the weights."""
    directions = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    with jax.enable_x64(True):
        lengths = np.array([[2.0], [0.3], [5.0], [1.0]])
        weights = attend(kind)(*(x[None] for x in (directions, directions * lengths, np.eye(4))))[0]
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-4), ("bfloat16", 0.1)])
def test_equals_numpy_row_by_row(kind: str, dtype: str, tolerance: float) -> None:
    """Over several blocks of queries; powers of 15 magnify float32's rounding of weights."""
    with jax.enable_x64(True):
        q, k, v = np.random.default_rng(0).normal(size=(3, 1, 80, 8)).astype(dtype)
        ours_SxE = np.asarray(attend(kind)(q, k, v)[0], np.float64)
    q, k, v = (x[0].astype(np.float64) for x in (q, k, v))
    expected_SxE = np.stack([attention_weights(kind, q[s], k[: s + 1]) @ v[: s + 1] for s in range(80)])
    np.testing.assert_allclose(ours_SxE, expected_SxE, atol=tolerance)


def test_equal_keys_leave_nothing_after_three_rows() -> None:
    """N A - 1 = 0 where all weights are equal: the row gives 0, and its gradient is finite."""
    same, v = np.ones((1, 6, 4), np.float32), np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)
    y_SxE = np.asarray(attend("lssar")(same, same, v))[0]
    means_SxE = np.cumsum(v[0], axis=0) / np.arange(1, 7)[:, None]
    np.testing.assert_allclose(y_SxE[:3], means_SxE[:3], rtol=1e-5)
    np.testing.assert_array_equal(y_SxE[3:], 0)
    found = jax.jit(jax.grad(lambda q, k, v: causal_attention(q, k, v, kind="lssar").sum(), argnums=(0, 1, 2)))(
        same, same, v)
    assert all(np.isfinite(leaf).all() for leaf in found)


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_stay_finite_in_float32(kind: str) -> None:
    """512^15 > 1e40 is beyond float32. One key in the direction of all queries, the others opposite."""
    k_SxE = -np.ones((512, 8), np.float32)
    k_SxE[5] *= -1
    q_SxE, v_SxE = np.ones((512, 8), np.float32), np.arange(512 * 8, dtype=np.float32).reshape(512, 8)

    def last(q: Array, k: Array, v: Array) -> Array:
        return causal_attention(q[None], k[None], v[None], kind=kind)[0, -1]

    np.testing.assert_allclose(jax.jit(last)(q_SxE, k_SxE, v_SxE), v_SxE[5], rtol=1e-4 if kind == "lssar" else 0.05)
    gradient = jax.jit(jax.grad(lambda *x: last(*x).sum(), argnums=(0, 1, 2)))(q_SxE, k_SxE, v_SxE)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    zeros = jax.jit(jax.grad(lambda q: last(q, k_SxE, v_SxE).sum()))(np.zeros_like(q_SxE))
    assert np.isfinite(zeros).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_in_a_window_is_attended_to_as_alone(kind: str) -> None:
    """The number of keys that a query sees starts again with each document."""
    with jax.enable_x64(True):
        q, k, v = np.random.default_rng(1).normal(size=(3, 1, 50, 8))
        begins_1xS = np.where(np.arange(50) < 37, 0, 37)[None].astype(np.int32)
        packed = np.asarray(attend(kind)(q, k, v, begins_1xS))
        for document in (slice(0, 37), slice(37, 50)):
            alone = attend(kind)(*(x[:, document] for x in (q, k, v)))
            np.testing.assert_allclose(packed[:, document], alone, atol=1e-12)


def test_normed_queries_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.qk_norm = True: expected False with model.attention = 'lssa'"):
        small_run(**{"model.qk_norm": True, "model.attention": "lssa"})
