"""SOAP: Adam in the eigenbases of Shampoo's two preconditioners."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from scaling.decompositions import full_svd, orthonormal
from scaling.optimizers.parts import Mask
from scaling.optimizers.projection import Scalar, adam_direction, average, by_matrix, descent, refreshed_if


class Rotated(NamedTuple):
    """Bases of both sides, and Adam's moments in their frame."""

    left_MxM: Array
    right_NxN: Array
    m_MxN: Array
    v_MxN: Array


class SoapState(NamedTuple):
    rotated: Rotated
    rows_MxM: Array  # average of GGᵀ
    columns_NxN: Array  # average of GᵀG


def _eigenbases(old: Rotated, gradient_MxN: Array) -> Rotated:
    """Eigenvectors of gg' and g'g, by falling eigenvalue. As singular vectors of g: eigh would leave the basis of the
    longer side's null space to rounding, and with it the steps after."""
    left_MxM, _, right_NxN = full_svd(gradient_MxN)
    return old._replace(left_MxM=left_MxM, right_NxN=right_NxN.T)


def _power_iteration(matrix: Array, basis: Array) -> tuple[Array, Array]:
    """The basis after one step towards the eigenvectors, and the order of estimated eigenvalues that it is in."""
    moved = matrix @ basis
    order = jnp.argsort(jnp.sum(basis * moved, axis=0), descending=True)
    return orthonormal(moved[:, order]), order


def _iterated(old: Rotated, rows_MxM: Array, columns_NxN: Array) -> Rotated:
    """Bases one power iteration on; m is rotated into them, v only put into their order."""
    left_MxM, order_M = _power_iteration(rows_MxM, old.left_MxM)
    right_NxN, order_N = _power_iteration(columns_NxN, old.right_NxN)
    m_MxN = left_MxM.T @ old.left_MxM @ old.m_MxN @ old.right_NxN.T @ right_NxN
    return Rotated(left_MxM, right_NxN, m_MxN, old.v_MxN[order_M][:, order_N])


def _first_state(matrix_MxN: Array) -> SoapState:
    (rows, columns), dtype = matrix_MxN.shape, matrix_MxN.dtype
    rotated = Rotated(jnp.eye(rows, dtype=dtype), jnp.eye(columns, dtype=dtype), jnp.zeros_like(matrix_MxN),
                      jnp.zeros_like(matrix_MxN))
    return SoapState(rotated, jnp.zeros((rows, rows), dtype), jnp.zeros((columns, columns), dtype))


def soap(learning_rate: Scalar, b1: Scalar, b2: Scalar, eps: Scalar, every: int, weight_decay: Scalar,
         mask: Mask = None) -> optax.GradientTransformation:
    """Shampoo with Adam in the preconditioner's eigenbasis, on matrices, every leaf one.

    Always L <- β₂L + (1-β₂)gg', R <- β₂R + (1-β₂)g'g. Call 0 does nothing more than take their eigenvectors Q_L, Q_R.
    Call t steps before L and R see the gradient: h = Q_L' g Q_R, m <- β₁m + (1-β₁)h, v <- β₂v + (1-β₂)h²,
    p <- p - η √(1-β₂^t)/(1-β₁^t) Q_L (m / (√v + ε)) Q_R'; then p <- (1 - ηλ)p on the parameters of `mask`; then, where
    `every` divides t, Q <- qr(LQ) with columns by falling diag(Q'LQ), v put in this order and m rotated along.
    Both sides have a basis, however long: the authors leave one out above 10 000. Where L or R still lacks rank at a
    refresh, as in kernels longer than (`every` + 1) times their width, rounding decides on a part of Q. Raises
    ConfigError for a leaf that is no matrix and no 4-D kernel. arXiv 2409.11321, in the order of its authors' code.
    """
    def step(gradient_MxN: Array, values_MxN: Array, state: SoapState, count: Array,
             decay: Scalar) -> tuple[Array, SoapState]:
        first, old = count == 0, state.rotated
        gradient_in_MxN = old.left_MxM.T @ gradient_MxN @ old.right_NxN
        m_MxN, v_MxN = average(old.m_MxN, gradient_in_MxN, b1), average(old.v_MxN, gradient_in_MxN**2, b2)
        inner_MxN = adam_direction(m_MxN, v_MxN, jnp.maximum(count, 1), b1, b2, eps)
        moved_MxN = descent(values_MxN, old.left_MxM @ inner_MxN @ old.right_NxN.T, learning_rate, decay)
        moved_MxN, m_MxN, v_MxN = (jnp.where(first, 0, value) for value in (moved_MxN, m_MxN, v_MxN))

        rows_MxM = average(state.rows_MxM, gradient_MxN @ gradient_MxN.T, b2)
        columns_NxN = average(state.columns_NxN, gradient_MxN.T @ gradient_MxN, b2)
        rotated = refreshed_if(first, _eigenbases, old._replace(m_MxN=m_MxN, v_MxN=v_MxN), gradient_MxN)
        rotated = refreshed_if(~first & (count % every == 0), _iterated, rotated, rows_MxM, columns_NxN)
        return moved_MxN, SoapState(rotated, rows_MxM, columns_NxN)

    return by_matrix(_first_state, step, weight_decay, mask)
