"""GradNormLoRP: weight normalization, with the direction's gradient projected to a low rank."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from scaling.optimizers.parts import Mask
from scaling.optimizers.projection import (
    LowRankAdam,
    Scalar,
    adam_direction,
    average,
    by_matrix,
    descent,
    low_rank_direction,
    low_rank_start,
    short_is_rows,
)


class GradNormLorpState(NamedTuple):
    v_MxN: Array  # V, whose columns are the directions of the output units
    gamma_1xN: Array
    adam: LowRankAdam  # of V
    m_1xN: Array  # of γ
    v_1xN: Array


def column_norms(matrix_MxN: Array) -> Array:
    """Lengths of the output units' weights, [1, N]; 1 in place of 0, so that dividing by them is safe."""
    norm_1xN = jnp.sqrt(jnp.sum(matrix_MxN**2, axis=0, keepdims=True))
    return jnp.where(norm_1xN > 0, norm_1xN, 1)


def weight_norm_gradients(gradient_MxN: Array, v_MxN: Array, gamma_1xN: Array) -> tuple[Array, Array]:
    """Gradients by V and γ of W = γV/‖V‖, from that by W, with u = V/‖V‖ for each output unit.

    ∂V = γ/‖V‖ (g - ⟨g,u⟩u), ∂γ = ⟨g,u⟩: no gradient along V. Salimans & Kingma 2016, arXiv 1602.07868.
    """
    norm_1xN = column_norms(v_MxN)
    unit_MxN = v_MxN / norm_1xN
    along_1xN = jnp.sum(gradient_MxN * unit_MxN, axis=0, keepdims=True)
    return gamma_1xN / norm_1xN * (gradient_MxN - along_1xN * unit_MxN), along_1xN


def gradnormlorp(learning_rate: Scalar, b1: Scalar, b2: Scalar, eps: Scalar, rank: int, every: int, scale: Scalar,
                 weight_decay: Scalar, released: bool, mask: Mask = None) -> optax.GradientTransformation:
    """Adam on V and γ of W = γV/‖V‖, one γ an output unit; W is the parameter, V and γ are state, every leaf a matrix.

    V <- V - ηs P Adam(Pᵀ∂V), with P as in galore on the short side and s = `scale`; γ <- γ - η Adam(∂γ); both then
    times (1 - ηλ) on the parameters of `mask`. An output unit that starts at zero has γ = 0 and equal V.
    Published idea: the gradients of `weight_norm_gradients`. Released: the authors' code, which at each step forgets γ
    for ‖V‖ and takes the gradient by W for V, radial part included; the step of γ acts until the next one.
    Raises ConfigError for a leaf that is no matrix and no 4-D kernel. arXiv 2412.19616; without its LoRA factors, which
    the authors' optimizer lacks too.
    """
    def start(matrix_MxN: Array) -> GradNormLorpState:
        gamma_1xN = jnp.sqrt(jnp.sum(matrix_MxN**2, axis=0, keepdims=True))
        equal = 0.0 if released else 1 / math.sqrt(len(matrix_MxN))
        v_MxN, zeros_1xN = jnp.where(gamma_1xN > 0, matrix_MxN, equal), jnp.zeros_like(gamma_1xN)
        adam = low_rank_start(matrix_MxN, rank, short_is_rows(matrix_MxN))
        return GradNormLorpState(v_MxN, gamma_1xN, adam, zeros_1xN, zeros_1xN)

    def step(gradient_MxN: Array, values_MxN: Array, state: GradNormLorpState, count: Array,
             decay: Scalar) -> tuple[Array, GradNormLorpState]:
        v_MxN, gamma_1xN = state.v_MxN, state.gamma_1xN
        by_v_MxN, by_gamma_1xN = weight_norm_gradients(gradient_MxN, v_MxN, gamma_1xN)
        if released:
            by_v_MxN, gamma_1xN = gradient_MxN, jnp.sqrt(jnp.sum(v_MxN**2, axis=0, keepdims=True))
        direction_MxN, adam = low_rank_direction(by_v_MxN, state.adam, count, b1, b2, eps, every,
                                                 short_is_rows(values_MxN))
        m_1xN, v_1xN = average(state.m_1xN, by_gamma_1xN, b1), average(state.v_1xN, by_gamma_1xN**2, b2)
        direction_1xN = adam_direction(m_1xN, v_1xN, count + 1, b1, b2, eps)
        v_MxN = v_MxN + descent(v_MxN, scale * direction_MxN, learning_rate, decay)
        gamma_1xN = gamma_1xN + descent(gamma_1xN, direction_1xN, learning_rate, decay)
        weights_MxN = gamma_1xN * v_MxN / column_norms(v_MxN)
        return weights_MxN - values_MxN, GradNormLorpState(v_MxN, gamma_1xN, adam, m_1xN, v_1xN)

    return by_matrix(start, step, weight_decay, mask)
