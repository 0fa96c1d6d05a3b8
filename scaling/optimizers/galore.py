"""GaLore: Adam on gradients projected to a few singular directions."""

from __future__ import annotations

import optax
from jax import Array

from scaling.optimizers.parts import Mask
from scaling.optimizers.projection import (
    LowRankAdam,
    Scalar,
    by_matrix,
    descent,
    low_rank_direction,
    low_rank_start,
    short_is_rows,
)


def galore(learning_rate: Scalar, b1: Scalar, b2: Scalar, eps: Scalar, rank: int, every: int, scale: Scalar,
           weight_decay: Scalar, long_side: bool, mask: Mask = None) -> optax.GradientTransformation:
    """Gradient low-rank projection on matrices, every leaf one.

    At updates 0, T, 2T ... (T = `every`) P = the gradient's `rank` leading singular vectors, at most as many as its
    short side is long; p <- p - ηs P Adam(Pᵀg), s = `scale`; then p <- (1 - ηλ)p on the parameters of `mask`. The
    moments are kept when P changes.
    P is of the short side, as published, or of the long one, as in optax.contrib.galore, which even at full rank loses
    what later gradients have outside of the first one's span; there optax decays p and not the moved p, and adds ε
    after the bias correction. Raises ConfigError for a leaf that is no matrix and no 4-D kernel. arXiv 2403.03507.
    """
    def rows_first(matrix_MxN: Array) -> bool:
        rows, columns = matrix_MxN.shape
        return rows >= columns if long_side else short_is_rows(matrix_MxN)

    def start(matrix_MxN: Array) -> LowRankAdam:
        return low_rank_start(matrix_MxN, rank, rows_first(matrix_MxN))

    def step(gradient_MxN: Array, values_MxN: Array, state: LowRankAdam, count: Array,
             decay: Scalar) -> tuple[Array, LowRankAdam]:
        direction_MxN, state = low_rank_direction(gradient_MxN, state, count, b1, b2, eps, every,
                                                  rows_first(values_MxN))
        return descent(values_MxN, scale * direction_MxN, learning_rate, decay), state

    return by_matrix(start, step, weight_decay, mask)
