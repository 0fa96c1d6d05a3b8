"""Loss when the data are repeated: tokens beyond the unique ones, and parameters beyond what these can feed, count
less and less.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power

_CITATION = "Muennighoff et al. 2023, arXiv 2305.16264"
_SIZE, _TOKENS = Input("N", "parameters"), Input("D", "tokens, repeats counted")
_BASE = (
    Parameter("E", "positive", (0.05, 10.0), linear=True),
    Parameter("A", "positive", (1e-3, 10.0), unit="N^alpha"),
    Parameter("B", "positive", (1e-3, 10.0), unit="D^alpha"),
    Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
)


def effective(seen: Any, unique: Any, scale: Any) -> jax.Array:
    """What `seen` is worth when only `unique` of it is new: U + U*Q*(1 - exp(-R/Q)), R = max(seen/U - 1, 0).

    Equals `seen` while that is <= `unique`, and tends to U*(1 + Q). `scale` is Q, in repeats; same unit in and out.
    """
    unique = jnp.minimum(unique, seen)
    return unique - unique * scale * jnp.expm1(-(seen / unique - 1) / scale)


def optimal_parameters(p: Mapping[str, Any], unique: Any) -> jax.Array:
    """Parameters that are compute-optimal for one pass over `unique` tokens: G^2*U, G = (A/B)^(1/(2*alpha)).

    The Chinchilla optimum with C = 6*N*D and equal exponents; `p` holds A, B and alpha.
    """
    return jnp.exp((jnp.log(p["A"]) - jnp.log(p["B"])) / p["alpha"]) * unique


def _data_constrained(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    tokens = effective(x["D"], x["U"], p["Q_D"])
    needed = optimal_parameters(p, jnp.minimum(x["U"], x["D"]))
    parameters = effective(x["N"], needed, p["Q_N"])
    return p["E"] + p["A"] * power(parameters, -p["alpha"]) + p["B"] * power(tokens, -p["alpha"])


DATA_CONSTRAINED = Law(
    name="data-constrained",
    formula="E + A/N'^alpha + B/D'^alpha, D' = U + U*Q_D*(1 - exp(-R_D/Q_D)), R_D = max(D/U - 1, 0); N' likewise"
    " with Q_N from U_N = min(N, (A/B)^(1/alpha)*U)",
    citation=_CITATION,
    inputs=(_SIZE, _TOKENS, Input("U", "unique tokens")),
    target="nats/token",
    parameters=(
        *_BASE,
        Parameter("Q_D", "positive", (1.0, 100.0), bounds=(1e-2, 1e4)),
        Parameter("Q_N", "positive", (0.3, 100.0), bounds=(1e-2, 1e4)),
    ),
    predict=_data_constrained,
    notes="One exponent for size and data. Q_D and Q_N, written R_D* and R_N* in the paper, are scales in repeats, not"
    " half-lives: after Q repeats a fraction 1/e of a fresh token's worth is left. U above D counts as D. A and B"
    " carry the units of N and D, and their ratio sets where parameters are in excess: all three inputs in plain"
    " numbers, not in billions. The paper fits E, A, B, alpha to single-epoch runs and then, these fixed, Q_D and Q_N"
    " to the repeated ones: with_fixed. Held so, 95% intervals of effective tokens and of the best allocation hold the"
    " truth in 40% and 28% (40 simulated pairs of fits); fit all at once, in 95%. Which N the paper counts is not"
    " recorded here.",
)


def _tied(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["N"], -p["alpha"]) + p["B"] * power(x["D"], -p["alpha"])


CHINCHILLA_TIED = Law(
    name="chinchilla-tied",
    formula="E + A/N^alpha + B/D^alpha",
    citation=f"{_CITATION}, the form of its single-epoch runs; Hoffmann et al. 2022, arXiv 2203.15556",
    inputs=(_SIZE, _TOKENS),
    target="nats/token",
    parameters=(
        _BASE[0],
        Parameter("A", "positive", (1e-3, 10.0), unit="N^alpha", linear=True),
        Parameter("B", "positive", (1e-3, 10.0), unit="D^alpha", linear=True),
        _BASE[3],
    ),
    predict=_tied,
    notes="Equal exponents make the optimal N proportional to D. It is data-constrained where nothing repeats and no"
    " model is larger than its tokens can feed; fitted to repeated runs it treats every token as new.",
)

DATA_CONSTRAINED_PUBLISHED = {
    "E": math.exp(0.6254804),
    "A": math.exp(6.255414),
    "B": math.exp(7.3049974),
    "alpha": 0.3526596,
    "Q_D": 15.387756,
    "Q_N": 5.309743,
}

LAWS = (DATA_CONSTRAINED, CHINCHILLA_TIED)
