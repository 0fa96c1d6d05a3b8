"""The objective minimised where a quantity, any function of a law's parameters, has a given value.

Letters: L lanes, M points, P parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.fitting import coordinates, solver
from scaling.fitting.problem import Problem
from scaling.fitting.solver import Data
from scaling.laws.law import Law, Scale

Quantity = Callable[[Mapping[str, Any]], Any]
_ROUNDS = 14
_STEEPER = 10.0


@dataclass(frozen=True, eq=False)
class Constrained:
    """A problem, and the quantity g that is held: a function of the parameters by name to a scalar, in jax.numpy."""

    problem: Problem
    quantity: Quantity

    def measured(self, u_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g at coordinates u, and its gradient [P] by them."""
        with jax.enable_x64(True):
            g, slope_P = _measured(self.problem.law, self.quantity, self.problem.data.reference_I, u_P)
            return np.asarray(g), np.asarray(slope_P)

    def minimise(
        self, start_LxP: np.ndarray, aim_L: np.ndarray, stiffness: float, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima under g = aim within `tolerance`, one a lane: coordinates [L, P] and the plain objective [L],
        nan where g cannot be met.

        Method of multipliers: the penalty stiffness*(g - target)^2/2 is minimised, the target shifted by what is left
        of the gap, and stiffness raised tenfold where a shift did not help. `stiffness` is best well above the
        objective's own curvature along g.
        """
        problem = self.problem
        fixed = problem.data, problem.weights()[0], np.float64(problem.objective.delta)
        u_LxP, shift_L, stiffness_L = start_LxP.copy(), np.zeros(len(aim_L)), np.full(len(aim_L), stiffness)
        value_L, gap_L = np.full(len(aim_L), np.nan), np.full(len(aim_L), np.inf)
        open_L = np.arange(len(aim_L))
        for _ in range(_ROUNDS):

            def block(index_L: np.ndarray, count: np.int32, lane_L: np.ndarray = open_L) -> tuple[jax.Array, ...]:
                at = lane_L[index_L]
                lanes = count, u_LxP[at], aim_L[at] + shift_L[at], stiffness_L[at]
                return _pulled(problem.law, problem.objective.scale, self.quantity, *fixed, *lanes)

            u_LxP[open_L], value_L[open_L], g_L = solver.in_blocks(block, len(open_L))
            left_L = np.where(np.isfinite(g_L), aim_L[open_L] - g_L, np.inf)
            steeper_L = np.where(np.abs(left_L) > 0.25 * gap_L[open_L], _STEEPER, 1.0)
            stiffness_L[open_L] *= steeper_L
            shift_L[open_L] = (shift_L[open_L] + np.where(np.isfinite(left_L), left_L, 0.0)) / steeper_L
            gap_L[open_L] = np.abs(left_L)
            open_L = open_L[gap_L[open_L] > tolerance]
            if not open_L.size:
                break
        value_L[open_L] = np.nan
        return u_LxP, value_L


@partial(jax.jit, static_argnames=("law", "quantity"))
def _measured(law: Law, quantity: Quantity, reference_I: jax.Array, u_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The quantity at u, and its gradient [P]."""

    def measure(u_P: jax.Array) -> jax.Array:
        parameters_P = coordinates.natural(law, u_P, jnp.asarray(reference_I))
        return jnp.asarray(quantity(dict(zip(law.parameter_names, parameters_P, strict=True))))

    return measure(u_P), jax.jacfwd(measure)(u_P)


@partial(jax.jit, static_argnames=("law", "scale", "quantity"))
def _pulled(
    law: Law,
    scale: Scale,
    quantity: Quantity,
    data: Data,
    weights_M: jax.Array,
    delta: jax.Array,
    count: jax.Array,
    u_LxP: jax.Array,
    target_L: jax.Array,
    stiffness_L: jax.Array,
) -> tuple[jax.Array, ...]:
    """Local minima of objective + stiffness*(g - target)^2/2: coordinates, the objective alone, and g."""
    measure = partial(_measured, law, quantity, jnp.asarray(data.reference_I))

    def expand(own: tuple[jax.Array, jax.Array], u_P: jax.Array) -> solver.Expansions:
        target, stiffness = own
        value, gradient_P, information_PxP = solver.curved(law, scale, data, weights_M, delta, u_P)
        g, slope_P = measure(u_P)
        pull_P = stiffness * (g - target) * slope_P
        bent_PxP = information_PxP + stiffness * jnp.outer(slope_P, slope_P)
        return value + stiffness * (g - target) ** 2 / 2, gradient_P + pull_P, bent_PxP

    limits = jnp.int32(100), jnp.float64(1e-12)
    end_LxP, total_L = solver.descend(law, expand, (target_L, stiffness_L), u_LxP, count, *limits)
    g_L = jax.vmap(measure)(end_LxP)[0]
    return end_LxP, total_L - stiffness_L * (g_L - target_L) ** 2 / 2, g_L
