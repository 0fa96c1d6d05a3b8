"""The numbers of a run that its optimizer takes: traced, so that a new one never recompiles. G groups."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from scaling.model import Model
from scaling.optimizer import SETTINGS, Optimizer

NUMBERS = tuple(sorted({name for takes in SETTINGS.values() for name in takes} - {"every", "form", "rank"}))


class OptimizerValues(NamedTuple):
    """Scalars of one run; None for those that its program has no use for.

    `weight_decay` multiplies the learning rate: λ when coupled, λ / peak when independent. `clip_norm`: inf for none.
    """

    b1: Any
    b2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any
    momentum: Any = None
    memory: Any = None
    b3: Any = None
    alpha: Any = None
    scale: Any = None
    delta: Any = None
    decay_ratio: Any = None
    tolerance: Any = None
    rates_G: Any = None  # factors of optimizer.groups
    decays_G: Any = None
    width_exponent: Any = None  # of a model with a base


def optimizer_values(spec: Optimizer, peak: float, model: Model | None, dtype: np.dtype) -> OptimizerValues:
    """The values of one run with a schedule of this peak, as numpy scalars and arrays; `model` as of `build`."""
    number = dtype.type
    taken = {name: number(getattr(spec, name)) if name in SETTINGS[spec.name] else None for name in NUMBERS}
    coupled = spec.decay_convention == "coupled"
    factors: dict[str, Any] = {}
    if spec.groups is not None:
        ones = (1.0,) * len(spec.groups)
        factors = {"rates_G": np.array(spec.group_rates or ones, dtype),
                   "decays_G": np.array(spec.group_decays or ones, dtype)}
    if model is not None and model.base is not None:
        factors["width_exponent"] = number(spec.width_exponent or 0)
    return OptimizerValues(weight_decay=number(spec.weight_decay if coupled else spec.weight_decay / peak),
                           clip_norm=number(np.inf if spec.clip_norm is None else spec.clip_norm), **taken, **factors)


def blank_values(spec: Optimizer) -> OptimizerValues:
    """Values of the right shapes, for what depends on shapes alone."""
    nothing_G = jnp.zeros(len(spec.groups or ()))
    blank = OptimizerValues(*(jnp.zeros(()) for _ in OptimizerValues._fields))
    return blank._replace(rates_G=nothing_G, decays_G=nothing_G)
