"""Where the solver starts: a scrambled Sobol set over the nonlinear parameters, the linear ones solved for, screened in
one call.

Letters: S starts, M points, P parameters, Q linear parameters.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from scaling.fitting import coordinates, objectives, solver
from scaling.fitting.objectives import Objective
from scaling.fitting.solver import Data
from scaling.laws.law import Law, Scale


def candidates(law: Law, count: int, seed: int) -> np.ndarray:
    """Low-discrepancy coordinates [S, P] in the box that the law's start ranges span; `count` a power of two."""
    low_P, high_P = coordinates.start_box(law)
    unit_SxP = qmc.Sobol(len(law.parameters), rng=np.random.default_rng(seed)).random(count)
    return low_P + unit_SxP * (high_P - low_P)


@partial(jax.jit, static_argnames=("law", "scale"))
def _screen(
    law: Law, scale: Scale, data: Data, weights_M: jax.Array, delta: jax.Array, u_SxP: jax.Array
) -> tuple[jax.Array, jax.Array]:
    target_M = jnp.asarray(data.target_M)
    aimed_M = objectives.to_scale(target_M, scale)

    def one(u_P: jax.Array) -> tuple[jax.Array, jax.Array]:
        u_P, prediction_M = _project(law, scale, data, weights_M, u_P)
        residual_M = objectives.to_scale(prediction_M, scale) - aimed_M
        return u_P, jnp.sum(weights_M * objectives.loss(residual_M, delta))

    return jax.vmap(one)(u_SxP)


def _project(law: Law, scale: Scale, data: Data, weights_M: jax.Array, u_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Coordinates with the linear parameters at their weighted least-squares values, pushed into their ranges; the
    prediction.

    The law is affine in them, so its columns are differences of predictions. For a log objective the points are
    weighted by 1/target^2, the first-order equivalent.
    """
    linear = [i for i, p in enumerate(law.parameters) if p.linear]
    values_P = coordinates.to_values(law, u_P)

    def prediction(linear_Q: jax.Array) -> jax.Array:
        full_P = values_P.at[jnp.array(linear, dtype=int)].set(linear_Q)
        return coordinates.predict(
            law, coordinates.to_parameters(law, full_P, jnp.asarray(data.reference_I)), data.inputs
        )

    at_M = jax.vmap(prediction)(jnp.eye(len(linear) + 1, len(linear), k=-1))
    rest_M, columns_QxM = at_M[0], at_M[1:] - at_M[0][None]
    size_M = data.target_M * data.unit_M if scale == "log" else data.unit_M
    weight_M = weights_M / size_M**2
    gram_QxQ = (columns_QxM * weight_M[None]) @ columns_QxM.T
    ridge_QxQ = 1e-12 * jnp.diag(jnp.diagonal(gram_QxQ))
    factor = jax.scipy.linalg.cho_factor(gram_QxQ + ridge_QxQ)
    linear_Q = jax.scipy.linalg.cho_solve(factor, columns_QxM @ (weight_M * (data.target_M - rest_M)))
    for place, i in enumerate(linear):
        parameter = law.parameters[i]
        if parameter.transform == "positive":
            linear_Q = linear_Q.at[place].set(jnp.clip(linear_Q[place], *parameter.start))
            u_P = u_P.at[i].set(jnp.log(linear_Q[place]))
        else:
            u_P = u_P.at[i].set(linear_Q[place])
    return u_P, rest_M + linear_Q @ columns_QxM


def screened(
    law: Law,
    objective: Objective,
    data: Data,
    weights_M: np.ndarray,
    seed: int,
    count: int = 1024,
    keep: int = solver.LANES,
) -> np.ndarray:
    """Of `count` candidates `keep` to polish, in coordinates [S, P]; fewer where fewer have a finite objective.

    Half are those of lowest objective; they often share a basin, so the others are spread out: from the better half of
    the candidates, each time the one farthest from all that are kept.
    """
    u_SxP = candidates(law, count, seed)
    u, value = _screen(law, objective.scale, data, weights_M, np.float64(objective.delta), u_SxP)
    u_SxP, value_S = np.asarray(u), np.asarray(value)
    order_S = np.argsort(value_S, kind="stable")
    order_S = order_S[np.isfinite(value_S[order_S])]
    if order_S.size == 0:
        raise FloatingPointError(
            f"law {law.name!r}: no start gives a finite objective ({objective}); a law whose prediction may be"
            " negative needs scale='raw'"
        )
    best, rest = order_S[: keep // 2], order_S[keep // 2 : max(count // 2, keep)]
    low_P, high_P = coordinates.start_box(law)
    return u_SxP[np.concatenate([best, rest[_spread((u_SxP / (high_P - low_P))[rest], keep - keep // 2)]])]


def _spread(u_SxP: np.ndarray, keep: int) -> np.ndarray:
    """Places of up to `keep` rows, each the farthest from those before it; the first row is the first."""
    places: list[int] = []
    distance_S = np.full(len(u_SxP), np.inf)
    for _ in range(min(keep, len(u_SxP))):
        places.append(int(np.argmax(distance_S)))
        distance_S = np.minimum(distance_S, np.sum((u_SxP - u_SxP[places[-1]]) ** 2, axis=1))
        distance_S[places] = -1.0
    return np.array(places, dtype=int)
