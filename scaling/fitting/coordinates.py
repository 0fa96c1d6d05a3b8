"""Between a law's parameters and the coordinates in which they are fitted.

Three layers: coordinates u (log, identity or logit, unbounded steps), values (the parameter, with a coefficient's unit
divided out at the geometric mean of the data), parameters as the law writes them. Centring decorrelates A from alpha
and frees the starts of units.

Letters: L lanes, P parameters, I inputs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.laws.law import Law


def reference(law: Law, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log of each input's geometric mean, where a coefficient's unit needs it; else 0."""
    centred = {parameter.power[0] for parameter in law.parameters if parameter.power}
    return np.array([np.log(inputs[name]).mean() if name in centred else 0.0 for name in law.input_names])


def to_coordinates(law: Law, values_xP: np.ndarray) -> np.ndarray:
    """Coordinates of values, along the last axis."""
    with np.errstate(divide="ignore"):
        forward: dict[str, Any] = {"positive": np.log, "real": np.asarray, "unit": lambda v: np.log(v) - np.log1p(-v)}
        columns = [forward[p.transform](values_xP[..., i]) for i, p in enumerate(law.parameters)]
    return np.stack(columns, axis=-1)


def to_values(law: Law, u_P: jax.Array) -> jax.Array:
    """Values of coordinates."""
    backward: dict[str, Any] = {"positive": jnp.exp, "real": lambda v: v, "unit": jax.nn.sigmoid}
    return jnp.stack([backward[p.transform](u_P[i]) for i, p in enumerate(law.parameters)])


def bounds(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the coordinates."""
    limits_2xP = np.array([p.limits for p in law.parameters]).T
    low_P, high_P = to_coordinates(law, limits_2xP)
    return low_P, high_P


def start_box(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Corners, in coordinates, of the box in which starts are drawn."""
    low_P, high_P = to_coordinates(law, np.array([p.start for p in law.parameters]).T)
    return low_P, high_P


def ordered(law: Law, u_P: np.ndarray) -> np.ndarray:
    """Coordinates with exchangeable terms in the order of their first parameter."""
    u_P = u_P.copy()
    if law.exchangeable:
        at = np.array([[law.parameter_names.index(name) for name in term] for term in law.exchangeable])
        u_P[at] = u_P[at][np.argsort(u_P[at[:, 0]])]
    return u_P


def to_parameters(law: Law, values_P: jax.Array, reference_I: jax.Array) -> jax.Array:
    """Parameters as the law writes them: a coefficient of unit N^alpha is its value times N0^alpha."""
    names, inputs = law.parameter_names, law.input_names
    columns = []
    for i, parameter in enumerate(law.parameters):
        value = values_P[i]
        if parameter.power:
            base, exponent, sign = parameter.power
            size = values_P[names.index(exponent)] if exponent in names else float(exponent)
            value = value * jnp.exp(sign * size * reference_I[inputs.index(base)])
        columns.append(value)
    return jnp.stack(columns)


def from_parameters(law: Law, parameters_P: np.ndarray, reference_I: np.ndarray) -> np.ndarray:
    """Coordinates of parameters: the inverse of `natural`."""
    values_P = np.array(parameters_P, dtype=np.float64)
    for i, parameter in enumerate(law.parameters):
        if parameter.power:
            base, exponent, sign = parameter.power
            names = law.parameter_names
            size = parameters_P[names.index(exponent)] if exponent in names else float(exponent)
            values_P[i] *= np.exp(-sign * size * reference_I[law.input_names.index(base)])
    return to_coordinates(law, values_P)


def natural(law: Law, u_P: jax.Array, reference_I: jax.Array) -> jax.Array:
    """Parameters of coordinates."""
    return to_parameters(law, to_values(law, u_P), reference_I)


@partial(jax.jit, static_argnames="law")
def natural_lanes(law: Law, u_LxP: jax.Array, reference_I: jax.Array) -> jax.Array:
    """Parameters of many coordinates, [L, P]."""
    return jax.vmap(lambda u_P: natural(law, u_P, reference_I))(u_LxP)


def predict(law: Law, parameters_P: jax.Array, inputs: Mapping[str, Any]) -> jax.Array:
    """The law at one parameter vector."""
    return law.predict(dict(zip(law.parameter_names, parameters_P, strict=True)), inputs)
