"""Loss against model dimension where more features are represented than there are dimensions."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from scaling.laws.law import Input, Law, Parameter, power


def _superposition(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["k"] * power(x["m"], -p["a"])


SUPERPOSITION = Law(
    name="superposition",
    formula="k/m^a",
    citation="Liu, Liu and Gore 2025, arXiv 2505.10465",
    inputs=(Input("m", "model dimension (width)", distinct=2),),
    target="loss, in any unit",
    parameters=(
        Parameter("k", "positive", (1e-9, 100.0), bounds=(1e-15, 1e9), unit="m^a", linear=True),
        Parameter("a", "positive", (0.1, 3.0), bounds=(1e-3, 10.0)),
    ),
    predict=_superposition,
    notes="Strong superposition gives a = 1 for a wide range of feature frequencies; weak superposition gives the"
    " exponent of the frequencies, as lost_frequency does. Subtract what does not depend on width first.",
)


def lost_frequency(dimensions: int, features: int, exponent: float) -> float:
    """Loss in weak superposition: sum of p_i beyond the `dimensions` most frequent, p_i in proportion to 1/i^(1+a).

    The m features that are kept are kept whole, the others lost; sum p = 1. Falls as m^-a while m is far below
    `features`. ValueError unless 0 < dimensions < features and exponent > 0.
    """
    if not (0 < dimensions < features and exponent > 0):
        raise ValueError(
            f"dimensions, features, exponent: {dimensions}, {features}, {exponent}; expected 0 < dimensions <"
            " features and exponent > 0"
        )
    frequency = np.arange(1, features + 1, dtype=np.float64) ** -(1 + exponent)
    return float(frequency[dimensions:].sum() / frequency.sum())


LAWS = (SUPERPOSITION,)
