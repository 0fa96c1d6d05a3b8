"""Levenberg-Marquardt with identity damping on Huber pseudo-residuals, many lanes at once.

Identity damping in centred log coordinates beats damping by the diagonal, and needs no line search. A parameter at a
bound that the gradient pushes outwards is held for that step.

Letters: L lanes (starts or resamples), S slots, M points, P parameters, I inputs.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling.fitting import coordinates, objectives
from scaling.laws.law import Law, Scale

LANES = 64
Expansions = tuple[jax.Array, jax.Array, jax.Array]
_SLOTS = 8  # few lanes wait for the slowest beside them, yet an operation is worth its call
_STALLED = 6


class Data(NamedTuple):
    """The points of a fit, and the log geometric means of the inputs. Rows of weight 0 are padding.

    Residuals are measured in `unit_M`: 1, or the standard error of the target on the objective's scale.
    """

    inputs: Mapping[str, jax.Array | np.ndarray]
    target_M: jax.Array | np.ndarray
    unit_M: jax.Array | np.ndarray
    reference_I: jax.Array | np.ndarray


class _Lane(NamedTuple):
    """One minimisation. It begins with value inf and no gradient: the first step stays in place, to evaluate it."""

    u_P: jax.Array
    value: jax.Array
    gradient_P: jax.Array
    information_PxP: jax.Array
    damping: jax.Array
    stalled: jax.Array
    step: jax.Array

    @classmethod
    def at(cls, u_P: jax.Array) -> "_Lane":
        """A lane that begins at u."""
        zero_P, zero = jnp.zeros_like(u_P), jnp.zeros((), jnp.int32)
        return cls(u_P, jnp.asarray(jnp.inf), zero_P, jnp.outer(zero_P, zero_P), jnp.ones(()), zero, zero)


class _Slots(NamedTuple):
    """Lanes under way, side by side, with what is theirs and their numbers; the next number; and where lanes ended."""

    lane_S: _Lane
    own_S: Any
    number_S: jax.Array
    next: jax.Array
    u_LxP: jax.Array
    value_L: jax.Array


def residual(law: Law, scale: Scale, data: Data, u_P: jax.Array) -> jax.Array:
    """Prediction less target on the objective's scale, in its unit, at coordinates u."""
    parameters_P = coordinates.natural(law, u_P, jnp.asarray(data.reference_I))
    prediction_M = coordinates.predict(law, parameters_P, data.inputs)
    return (objectives.to_scale(prediction_M, scale) - objectives.to_scale(data.target_M, scale)) / data.unit_M


def residual_and_jacobian(law: Law, scale: Scale, data: Data, u_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The residual and its derivative by coordinates, [P, M]."""
    residual_M, push = jax.linearize(partial(residual, law, scale, data), u_P)
    return residual_M, jax.vmap(push)(jnp.eye(u_P.size, dtype=u_P.dtype))


class Expansion(NamedTuple):
    """First-order expansion of a fit at coordinates u: residual and parameters with their derivatives by u."""

    residual_M: np.ndarray
    jacobian_PxM: np.ndarray
    parameters_P: np.ndarray
    change_PxP: np.ndarray


def expansion(law: Law, scale: Scale, data: Data, u_P: np.ndarray, points: int) -> Expansion:
    """The expansion at u over the first `points` rows (the others are padding)."""
    residual_M, jacobian_PxM, parameters_P, change_PxP = map(np.asarray, _expansion(law, scale, data, u_P))
    return Expansion(residual_M[:points], jacobian_PxM[:, :points], parameters_P, change_PxP)


@partial(jax.jit, static_argnames=("law", "scale"))
def _expansion(law: Law, scale: Scale, data: Data, u_P: jax.Array) -> tuple[jax.Array, ...]:
    natural = partial(coordinates.natural, law, reference_I=jnp.asarray(data.reference_I))
    return *residual_and_jacobian(law, scale, data, u_P), natural(u_P), jax.jacfwd(natural)(u_P)


@partial(jax.jit, static_argnames=("law", "scale", "own_data"))
def _minimise(
    law: Law,
    scale: Scale,
    own_data: bool,
    data: Data,
    count: jax.Array,
    u_LxP: jax.Array,
    weights_LxM: jax.Array,
    delta: jax.Array,
    steps: jax.Array,
    tolerance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def expand(own: tuple[Data | None, jax.Array], u_P: jax.Array) -> Expansions:
        own_points, weights_M = own
        return curved(law, scale, data if own_points is None else own_points, weights_M, delta, u_P)

    return descend(law, expand, (data if own_data else None, weights_LxM), u_LxP, count, steps, tolerance)


def curved(
    law: Law, scale: Scale, data: Data, weights_M: jax.Array, delta: jax.Array, u_P: jax.Array
) -> Expansions:
    """The objective at u, its gradient [P] and its Gauss-Newton information [P, P]."""
    residual_M, jacobian_PxM = residual_and_jacobian(law, scale, data, u_P)
    value = jnp.sum(weights_M * objectives.loss(residual_M, delta))
    gradient_P = jacobian_PxM @ (weights_M * objectives.score(residual_M, delta))
    bent_PxM = jacobian_PxM * (weights_M * objectives.curvature(residual_M, delta))[None]
    return value, gradient_P, bent_PxM @ jacobian_PxM.T


def descend(
    law: Law,
    expand: Callable[[Any, jax.Array], Expansions],
    own_L: Any,
    u_LxP: jax.Array,
    count: jax.Array,
    steps: jax.Array,
    tolerance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """From u to local minima of what `expand` expands, within the law's bounds: coordinates and values.

    `expand` maps what is a lane's own (`own_L`, leading axis L) and coordinates to the objective, its gradient and
    its information. Only the first `count` lanes are minimised. A few are under way at a time, and where one ends the
    next takes its slot: lanes take from ten steps to hundreds, and side by side all would wait for the slowest.
    """
    low_P, high_P = map(jnp.asarray, coordinates.bounds(law))
    lanes = len(u_LxP)

    def begin(number_S: jax.Array) -> tuple[_Lane, Any]:
        at_S = jnp.minimum(number_S, lanes - 1)
        return jax.vmap(_Lane.at)(u_LxP[at_S]), jax.tree.map(lambda leaf_L: leaf_L[at_S], own_L)

    def advance(s: _Slots) -> _Slots:
        def step(own: Any, lane: _Lane) -> _Lane:
            return _step(partial(expand, own), low_P, high_P, tolerance, lane)

        s = s._replace(lane_S=jax.vmap(step)(s.own_S, s.lane_S))
        ended_S = (s.lane_S.step >= steps) | (s.lane_S.stalled >= _STALLED)
        return jax.lax.cond(jnp.any(ended_S), lambda s: _turned(s, ended_S, begin), lambda s: s, s)

    first_S = jnp.arange(_SLOTS, dtype=jnp.int32)
    nowhere = jnp.zeros_like(u_LxP), jnp.zeros_like(u_LxP, shape=lanes)
    slots = _Slots(*begin(first_S), first_S, jnp.asarray(_SLOTS, jnp.int32), *nowhere)
    last = jax.lax.while_loop(lambda s: jnp.any(s.number_S < count), advance, slots)
    return last.u_LxP, last.value_L


def _turned(s: _Slots, ended_S: jax.Array, begin: Callable[[jax.Array], tuple[_Lane, Any]]) -> _Slots:
    """The slots after those that ended have left their results and taken the next lanes; beyond the last there is none
    to take, and what such a slot does is dropped.
    """
    place_S = jnp.where(ended_S, s.number_S, len(s.u_LxP))
    number_S = jnp.where(ended_S, s.next - 1 + jnp.cumsum(ended_S, dtype=jnp.int32), s.number_S)

    def taken(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(ended_S, tuple(range(1, old.ndim))), new, old)

    lane_S, own_S = jax.tree.map(taken, begin(number_S), (s.lane_S, s.own_S))
    return _Slots(
        lane_S,
        own_S,
        number_S,
        s.next + jnp.sum(ended_S, dtype=jnp.int32),
        s.u_LxP.at[place_S].set(s.lane_S.u_P, mode="drop"),
        s.value_L.at[place_S].set(s.lane_S.value, mode="drop"),
    )


def _step(
    expand: Callable[[jax.Array], Expansions],
    low_P: jax.Array,
    high_P: jax.Array,
    tolerance: jax.Array,
    s: _Lane,
) -> _Lane:
    held_P = ((s.u_P <= low_P) & (s.gradient_P > 0)) | ((s.u_P >= high_P) & (s.gradient_P < 0))
    free_P = jnp.where(held_P, 0.0, 1.0)
    matrix_PxP = s.information_PxP * jnp.outer(free_P, free_P) + s.damping * jnp.eye(free_P.size)
    factor = jax.scipy.linalg.cho_factor(matrix_PxP)
    move_P = jax.scipy.linalg.cho_solve(factor, -s.gradient_P * free_P)
    u_P = jnp.clip(s.u_P + move_P, low_P, high_P)
    value, gradient_P, information_PxP = expand(u_P)
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient_P)) & jnp.all(jnp.isfinite(information_PxP))
    better = finite & (value < s.value)
    gained = better & (s.value - value > tolerance * s.value)
    damping = jnp.where(better, s.damping / 5, s.damping * 4)
    damping = jnp.where(s.step == 0, 1e-3 * jnp.max(jnp.diagonal(information_PxP)), damping)
    return _Lane(
        u_P=jnp.where(better, u_P, s.u_P),
        value=jnp.where(better, value, s.value),
        gradient_P=jnp.where(better, gradient_P, s.gradient_P),
        information_PxP=jnp.where(better, information_PxP, s.information_PxP),
        damping=damping,
        stalled=jnp.where(gained, 0, s.stalled + 1),
        step=s.step + 1,
    )


def minimise(
    law: Law,
    scale: Scale,
    delta: float,
    data: Data,
    u_LxP: np.ndarray,
    weights_LxM: np.ndarray,
    steps: int,
    tolerance: float,
    own_data: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Local minima from each lane's start: coordinates [L, P] and objective values [L].

    A lane has its own start and weights, and with `own_data` its own points too (leading axis L). It stops after
    `steps`, or after six steps in a row that gain less than `tolerance` relative.
    """

    def block(index_L: np.ndarray, count: np.int32) -> tuple[jax.Array, ...]:
        own = jax.tree.map(lambda leaf: leaf[index_L], data) if own_data else data
        limits = np.float64(delta), np.int32(steps), np.float64(tolerance)
        return _minimise(law, scale, own_data, own, count, u_LxP[index_L], weights_LxM[index_L], *limits)

    us, values = in_blocks(block, len(u_LxP))
    return us, values


def in_blocks(block: Callable[[np.ndarray, np.int32], tuple[jax.Array, ...]], lanes: int) -> list[np.ndarray]:
    """The results of `block` for all lanes, `LANES` at a time: it is given their indices (the last repeated) and how
    many of them count.

    Every call of one law and one padded number of points so shares one compilation. Blocks run in float64, in threads,
    one a core, since a block's loop keeps a single one busy.
    """

    def at(first: int) -> list[np.ndarray]:
        index_L = np.minimum(np.arange(first, first + LANES), lanes - 1)
        with jax.enable_x64(True):
            return [np.asarray(part) for part in block(index_L, np.int32(min(LANES, lanes - first)))]

    ends = [at(0)]  # alone, so that the threads find it compiled
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ends += pool.map(at, range(LANES, lanes, LANES))
    return [np.concatenate(part)[:lanes] for part in zip(*ends, strict=True)]


def pad(count: int) -> int:
    """Points to allocate: 64, 96, 128, 192, 256, ...; few sizes, since each compiles anew, and at most a third idle."""
    power = max(64, 1 << max(count - 1, 0).bit_length())
    return power * 3 // 4 if 64 < count <= power * 3 // 4 else power
