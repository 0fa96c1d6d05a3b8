"""Conda: Adam in the basis of the momentum's singular vectors on the short side."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import Mask
from scaling.optimizers.projection import (
    Scalar,
    adam_direction,
    average,
    by_matrix,
    descent,
    refreshed_if,
    short_is_rows,
    singular_vectors,
    turned,
)


class CondaState(NamedTuple):
    m_MxN: Array
    v_SxO: Array  # in the basis
    basis_SxS: Array


def conda(learning_rate: Scalar, b1: Scalar, b2: Scalar, eps: Scalar, scale: Scalar, every: int, weight_decay: Scalar,
          mask: Mask = None) -> optax.GradientTransformation:
    """Column-normalized Adam on matrices, every leaf one.

    m <- β₁m + (1-β₁)g; at updates 0, T, 2T ... (T = `every`) B = the singular vectors of m on its short side;
    v <- β₂v + (1-β₂)(Bᵀg)², which a new B leaves as it is; p <- p - ηs √(1-β₂^t)/(1-β₁^t) B(Bᵀm / (√v + ε)); then
    p <- (1 - ηλ)p on the parameters of `mask`. s = `scale`: the step's RMS is ηs at the first update.
    Raises ConfigError for a leaf that is no matrix and no 4-D kernel. arXiv 2509.24218, in the order of its authors'
    code.
    """
    def start(matrix_MxN: Array) -> CondaState:
        v_SxO = jnp.zeros_like(turned(matrix_MxN, short_is_rows(matrix_MxN)))
        return CondaState(jnp.zeros_like(matrix_MxN), v_SxO, jnp.eye(len(v_SxO), dtype=v_SxO.dtype))

    def step(gradient_MxN: Array, values_MxN: Array, state: CondaState, count: Array,
             decay: Scalar) -> tuple[Array, CondaState]:
        rows_first = short_is_rows(values_MxN)
        m_MxN = average(state.m_MxN, gradient_MxN, b1)
        basis_SxS = refreshed_if(count % every == 0, functools.partial(singular_vectors, rows_first), state.basis_SxS,
                                 m_MxN)
        m_SxO, gradient_SxO = (basis_SxS.T @ turned(matrix, rows_first) for matrix in (m_MxN, gradient_MxN))
        v_SxO = average(state.v_SxO, gradient_SxO**2, b2)
        direction_SxO = basis_SxS @ adam_direction(m_SxO, v_SxO, count + 1, b1, b2, eps)
        moved_MxN = descent(values_MxN, scale * turned(direction_SxO, rows_first), learning_rate, decay)
        return moved_MxN, CondaState(m_MxN, v_SxO, basis_SxS)

    return by_matrix(start, step, weight_decay, mask)
