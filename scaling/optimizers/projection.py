"""What the matrix methods share: leaves as matrices, bases refreshed now and then, Adam inside a basis, decay.

M rows and N columns of a kernel as Flax stores it: inputs x outputs. A 4-D convolution kernel is a matrix of (window
height x window width x inputs) rows. `turned` puts the side that a basis spans first: S, the other one is O; R: rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.custom_batching import custom_vmap

from scaling.decompositions import thin_svd
from scaling.fields import check
from scaling.optimizers.parts import Mask, decaying, widened

Scalar = Any  # a number, or an array without axes, traced or not
Start = Callable[[Array], Any]
Step = Callable[[Array, Array, Any, Array, Scalar], tuple[Array, Any]]


class MatricesState(NamedTuple):
    step: Array  # int32: updates so far
    matrices: Any  # the tree of the parameters, with a method's state in place of each


def by_matrix(start: Start, step: Step, weight_decay: Scalar, mask: Mask) -> optax.GradientTransformation:
    """A transformation that treats every leaf by itself, as a matrix in float32 or more; updates keep their dtype.

    `start(parameters_MxN)` is a leaf's first state, `step(gradient_MxN, parameters_MxN, state, count, decay)` its
    update and next state; count: updates so far; decay: λ, or 0 by `mask`. Raises ConfigError for a leaf that is
    neither a matrix nor a 4-D kernel, ValueError for an update without parameters.
    """
    def init(params: Any) -> MatricesState:
        jax.tree_util.tree_map_with_path(_check_leaf, params)
        return MatricesState(jnp.zeros([], jnp.int32), jax.tree.map(lambda leaf: start(_as_matrix(leaf)), params))

    def update(gradients: Any, state: MatricesState, params: Any = None) -> tuple[Any, MatricesState]:
        def one(gradient: Array, leaf: Array, decays: bool, old: Any) -> tuple[Array, Any]:
            moved, new = step(_as_matrix(gradient), _as_matrix(leaf), old, state.step, weight_decay * decays)
            return moved.reshape(leaf.shape), new

        both = jax.tree.map(one, gradients, params, decaying(mask, params), state.matrices)
        updates, matrices = (jax.tree.map(lambda _, pair, place=place: pair[place], params, both) for place in (0, 1))
        return updates, MatricesState(optax.safe_increment(state.step), matrices)

    return widened(optax.GradientTransformation(init, update))


def _check_leaf(path: tuple, leaf: Array) -> None:
    check(leaf.ndim in (2, 4), f"params{jax.tree_util.keystr(path)}.shape", leaf.shape,
          "a matrix or a 4-D convolution kernel", "send other parameters to AdamW with optax.partition")


def _as_matrix(leaf: Array) -> Array:
    return leaf.reshape(-1, leaf.shape[-1])


def descent(values: Array, direction: Array, learning_rate: Scalar, decay: Scalar) -> Array:
    """What to add for p <- (1 - ηλ)(p - ηd): decay follows the step, as in the authors' codes; AdamW has p - ηd - ηλp.
    """
    moved = -learning_rate * direction
    return moved - learning_rate * decay * (values + moved)


def average(old: Array, new: Array, decay: Scalar) -> Array:
    """βa + (1-β)x."""
    return decay * old + (1 - decay) * new


def adam_direction(m: Array, v: Array, t: Array, b1: Scalar, b2: Scalar, eps: Scalar) -> Array:
    """√(1-β₂^t)/(1-β₁^t) m/(√v + ε), t from 1. ε is added to the biased √v, so that early steps feel it more than
    optax's, which adds it to √v̂."""
    return jnp.sqrt(1 - b2**t) / (1 - b1**t) * m / (jnp.sqrt(v) + eps)


def refreshed_if(due: Array, refresh: Callable, old: Any, *inputs: Any) -> Any:
    """`refresh(old, *inputs)` where due, else `old`, of the same shapes and dtypes.

    Under vmap `lax.cond` would decompose matrices at every step, for each run. Here the batch branches as one: it
    refreshes when any of its runs is due, each run then keeping what is its own. `refresh` closes over no tracer.
    """
    @custom_vmap
    def chosen(due: Array, old: Any, inputs: Any) -> Any:
        return lax.cond(due, lambda: jax.tree.map(lambda new, kept: new.astype(kept.dtype), refresh(old, *inputs), old),
                        lambda: old)

    @chosen.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> tuple[Any, Any]:
        due_B, old_B, inputs_B = jax.tree.map(
            lambda value, has: value if has else jnp.broadcast_to(value, (size, *jnp.shape(value))),
            arguments, tuple(batched))

        def each(old_B: Any, due_B: Array, *inputs_B: Any) -> Any:
            return jax.vmap(lambda due, old, *inputs: jax.tree.map(
                lambda new, kept: jnp.where(due, new, kept), refresh(old, *inputs), old))(due_B, old_B, *inputs_B)

        new_B = refreshed_if(jnp.any(due_B), each, old_B, due_B, *inputs_B)
        return new_B, jax.tree.map(lambda _: True, new_B)

    return chosen(due, old, inputs)


def turned(matrix: Array, rows_first: bool) -> Array:
    """The matrix, or its transpose; its own inverse."""
    return matrix if rows_first else matrix.T


def short_is_rows(matrix_MxN: Array) -> bool:
    """Whether rows are the shorter side. Squares too: PyTorch's codes take the right singular vectors of an (outputs,
    inputs) weight then, which are the left ones of a Flax kernel."""
    rows, columns = matrix_MxN.shape
    return rows <= columns


def singular_vectors(rows_first: bool, old_SxR: Array, matrix_MxN: Array) -> Array:
    """The leading ones of a side, as many as before. By SVD, since in float32 eigenvectors of the Gram matrix, though
    30 times cheaper, are lost below σ_max / 1000, where Adam makes them as large as the others."""
    left, _, right = thin_svd(matrix_MxN)
    return (left if rows_first else right.T)[:, :old_SxR.shape[1]]


class LowRankAdam(NamedTuple):
    basis_SxR: Array
    m_RxO: Array
    v_RxO: Array


def low_rank_start(matrix_MxN: Array, rank: int, rows_first: bool) -> LowRankAdam:
    """Zero moments; the rank is at most the short side."""
    side, other = turned(matrix_MxN, rows_first).shape
    rank = min(rank, side, other)
    moment_RxO = jnp.zeros((rank, other), matrix_MxN.dtype)
    return LowRankAdam(jnp.eye(side, rank, dtype=matrix_MxN.dtype), moment_RxO, moment_RxO)


def low_rank_direction(gradient_MxN: Array, state: LowRankAdam, count: Array, b1: Scalar, b2: Scalar, eps: Scalar,
                       every: int, rows_first: bool) -> tuple[Array, LowRankAdam]:
    """P Adam(Pᵀg), P the gradient's R leading singular vectors on one side, taken anew at updates 0, T, 2T ...

    The moments are kept when P changes, as the authors do: from the second P on, the step depends on the signs that
    the SVD happens to give.
    """
    basis_SxR = refreshed_if(count % every == 0, functools.partial(singular_vectors, rows_first), state.basis_SxR,
                             gradient_MxN)
    projected_RxO = basis_SxR.T @ turned(gradient_MxN, rows_first)
    m_RxO, v_RxO = average(state.m_RxO, projected_RxO, b1), average(state.v_RxO, projected_RxO**2, b2)
    direction_SxO = basis_SxR @ adam_direction(m_RxO, v_RxO, count + 1, b1, b2, eps)
    return turned(direction_SxO, rows_first), LowRankAdam(basis_SxR, m_RxO, v_RxO)
