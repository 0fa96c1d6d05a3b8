"""What a fit minimises: a Huber sum of residuals, on log loss or on the raw scale.

Letters: M points.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Law, Scale


@dataclass(frozen=True)
class Objective:
    """sum_m w_m H(r_m), H(r) = r^2/2 for |r| <= delta, else delta*(|r| - delta/2); summed, never averaged.

    `scale`: r = log prediction - log target, or prediction - target (needed where the target may be zero or negative).
    Least squares is delta = inf.
    """

    delta: float
    scale: Scale

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"delta: {self.delta} must be > 0")
        if self.scale not in ("log", "raw"):
            raise ValueError(
                f"scale: {self.scale!r} must be 'log' (residuals of log loss) or 'raw' (residuals of the loss itself)"
            )

    def __str__(self) -> str:
        name = "least squares" if math.isinf(self.delta) else f"Huber({self.delta:g})"
        return f"{name} on {'log target' if self.scale == 'log' else 'target'}"


def huber(delta: float = 1e-3, scale: Scale = "log") -> Objective:
    """The field's robust objective; delta = 1e-3 on log loss is close to least absolute deviations (Hoffmann et al.
    2022).
    """
    return Objective(delta, scale)


def least_squares(scale: Scale = "raw") -> Objective:
    """Half the sum of squared residuals."""
    return Objective(math.inf, scale)


def default_objective(law: Law, known_errors: bool) -> Objective:
    """Huber on log loss, least squares for a law on the raw scale; with known errors Huber at 1.345 of them (95%
    efficient under normal noise).
    """
    if known_errors:
        return huber(1.345, law.scale)
    return huber() if law.scale == "log" else least_squares()


def to_scale(values_M: Any, scale: Scale) -> jax.Array:
    """Targets or predictions on the scale of the residuals."""
    return jnp.log(values_M) if scale == "log" else jnp.asarray(values_M)


def loss(residual_M: jax.Array, delta: jax.Array | float) -> jax.Array:
    """H(r)."""
    size_M = jnp.abs(residual_M)
    return jnp.where(size_M <= delta, residual_M**2 / 2, delta * (size_M - delta / 2))


def score(residual_M: jax.Array, delta: jax.Array | float) -> jax.Array:
    """H'(r)."""
    return jnp.clip(residual_M, -delta, delta)


def curvature(residual_M: jax.Array, delta: jax.Array | float) -> jax.Array:
    """Gauss-Newton curvature of the pseudo-residual q = sign(r)*sqrt(2*H(r)): (dq/dr)^2 = H'(r)^2 / (2*H(r)), and 1
    inside delta.

        Positive everywhere, unlike H'', which is 0 where most points sit when delta is small.
    """
    size_M = jnp.abs(residual_M)
    return jnp.where(size_M <= delta, 1.0, delta / (2 * jnp.maximum(size_M, delta) - delta))
