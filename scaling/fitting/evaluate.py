"""Laws evaluated at many parameter vectors, in float64, from and to numpy.

Letters: B parameter vectors, K points, P parameters.
"""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from scaling.fitting import coordinates
from scaling.fitting.solver import pad
from scaling.laws.law import Law


def at_each(law: Law, parameters_BxP: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Every parameter vector at every point: inputs of one (broadcast) shape [...], result [B, ...]."""
    arrays = np.broadcast_arrays(*inputs.values())
    count = arrays[0].size
    flat = {name: np.resize(array, pad(count)) for name, array in zip(inputs, arrays, strict=True)}
    with jax.enable_x64(True):
        values_BxK = np.asarray(_at_each(law, parameters_BxP, flat))[:, :count]
    return values_BxK.reshape(len(parameters_BxP), *arrays[0].shape)


def at_own(law: Law, parameters_BxP: np.ndarray, inputs: Mapping[str, np.ndarray | float]) -> np.ndarray:
    """Each parameter vector at its own points: inputs [B, K] or scalars, result [B, K]."""
    names, arrays = list(inputs), np.broadcast_arrays(*inputs.values())
    with jax.enable_x64(True):
        return np.asarray(_at_own(law, parameters_BxP, dict(zip(names, map(np.float64, arrays), strict=True))))


@partial(jax.jit, static_argnames="law")
def _at_each(law: Law, parameters_BxP: jax.Array, inputs: Mapping[str, jax.Array]) -> jax.Array:
    return jax.vmap(partial(coordinates.predict, law), in_axes=(0, None))(parameters_BxP, inputs)


@partial(jax.jit, static_argnames="law")
def _at_own(law: Law, parameters_BxP: jax.Array, inputs: Mapping[str, jax.Array]) -> jax.Array:
    return jax.vmap(partial(coordinates.predict, law))(parameters_BxP, inputs)
