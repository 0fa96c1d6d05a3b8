"""Sparsity of activations against training data."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power

_CITATION = "Luo et al. 2024 (Sparsing law), arXiv 2411.02335"
_TOKENS = Input("D", "tokens", distinct=4)
_TARGET = "share of active neurons (1 - sparsity), a fraction"
_LIMIT = Parameter("A0", "positive", (1e-3, 1.0), linear=True)
_EXPONENT = Parameter("alpha", "positive", (0.1, 3.0), bounds=(1e-2, 10.0))


def _relu(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return jnp.exp(p["b"] - p["c"] * power(x["D"], p["alpha"])) + p["A0"]


SPARSITY_RELU = Law(
    name="sparsity-relu",
    formula="exp(b - c*D^alpha) + A0",
    citation=_CITATION,
    inputs=(_TOKENS,),
    target=_TARGET,
    scale="raw",
    parameters=(
        Parameter("b", "real", (-8.0, 0.0), bounds=(-30.0, 5.0)),
        Parameter("c", "positive", (1e-2, 10.0), unit="D^-alpha"),
        _EXPONENT,
        _LIMIT,
    ),
    predict=_relu,
    notes="Falls with data. A neuron is active if dropping the weakest ones raises perplexity by 1% (CETT-PPL-1%). In"
    " the paper D is in billions of tokens (unit unverified). A0 hardly depends on size and grows with width/depth.",
)


def _silu(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["A0"] - p["c"] * power(x["D"], -p["alpha"])


SPARSITY_SILU = Law(
    name="sparsity-silu",
    formula="A0 - c/D^alpha",
    citation=_CITATION,
    inputs=(_TOKENS,),
    target=_TARGET,
    scale="raw",
    parameters=(Parameter("c", "positive", (1e-4, 1.0), unit="D^alpha", linear=True), _EXPONENT, _LIMIT),
    predict=_silu,
    notes="Rises with data; otherwise as sparsity-relu.",
)

SPARSITY_RELU_PUBLISHED = {"b": -3.46, "c": 1.56e-4, "alpha": 1.53, "A0": 0.0648}
"""The 2.4B model, D in billions of tokens."""

LAWS = (SPARSITY_RELU, SPARSITY_SILU)
