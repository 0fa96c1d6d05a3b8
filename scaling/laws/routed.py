"""Loss of routed (mixture-of-experts) models against dense size and number of experts."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.laws.law import Input, Law, Parameter

_CITATION = "Clark et al. 2022, arXiv 2202.01169"


def saturated_experts(experts: Any, start: Any, most: Any) -> Any:
    """Ehat with 1/Ehat = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em: Es for one expert, Em for ever more of them."""
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most)


def _routed(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    size, experts = jnp.log10(x["N"]), jnp.log10(saturated_experts(x["experts"], p["Es"], p["Em"]))
    return jnp.power(10.0, p["a"] * size + p["b"] * experts + p["c"] * size * experts + p["d"])


ROUTED = Law(
    name="routed",
    formula="10^(a*log10 N + b*log10 Ehat + c*log10 N*log10 Ehat + d), 1/Ehat = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em,"
    " E experts",
    citation=_CITATION,
    inputs=(
        Input("N", "parameters of the dense model"),
        Input("experts", "experts in a routed layer, 1 for a dense model", 1.0, low_included=True, distinct=4),
    ),
    target="nats/token",
    parameters=(
        Parameter("a", "real", (-0.3, 0.0), bounds=(-5.0, 5.0)),
        Parameter("b", "real", (-0.5, 0.0), bounds=(-5.0, 5.0)),
        Parameter("c", "real", (-0.03, 0.05), bounds=(-2.0, 2.0)),
        Parameter("d", "real", (0.0, 3.0), bounds=(-20.0, 20.0)),
        Parameter("Es", "positive", (1.0, 6.0), bounds=(0.5, 1e3)),
        Parameter("Em", "positive", (10.0, 3e3), bounds=(2.0, 1e9)),
    ),
    predict=_routed,
    notes="Logarithms to base 10. One fit a router, at one routing frequency and one expert a token. c > 0: routing"
    " helps less as models grow. Counts of N change d alone. A few digits of the constants decide: the rounded ones"
    " put the cutoff at 1.0T, 32B and 215B where the paper says 937B, 85B and 83B.",
)

ROUTED_PUBLISHED = {
    "S-BASE": {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "Es": 1.847, "Em": 314.478},
    "RL-R": {"a": -0.083, "b": -0.126, "c": 0.012, "d": 1.111, "Es": 1.880, "Em": 469.982},
    "HASH": {"a": -0.087, "b": -0.136, "c": 0.012, "d": 1.157, "Es": 4.175, "Em": 477.741},
}
"""By router, rounded as printed."""


def effective_parameters(p: Mapping[str, float], size: Any, experts: Any) -> np.ndarray:
    """Dense parameters of equal loss: N^(s(Ehat)/s(Es)) * (Ehat/Es)^(b/s(Es)), s(x) = a + c*log10 x.

    `p` holds the parameters of `ROUTED`. One expert gives N itself.
    """
    saturated = saturated_experts(np.asarray(experts, dtype=np.float64), p["Es"], p["Em"])
    dense = p["a"] + p["c"] * np.log10(p["Es"])
    grown = (p["a"] + p["c"] * np.log10(saturated)) / dense
    return np.asarray(size, dtype=np.float64) ** grown * (saturated / p["Es"]) ** (p["b"] / dense)


def cutoff(p: Mapping[str, float]) -> float:
    """Dense parameters beyond which routing no longer helps, 10^(-b/c); inf where c <= 0 and it always helps.

    ValueError where b >= 0: more experts then never helped a small model.
    """
    if p["b"] >= 0:
        raise ValueError(f"b: {p['b']} must be < 0, or routing does not help at any size")
    return math.inf if p["c"] <= 0 else float(10 ** (-p["b"] / p["c"]))


LAWS = (ROUTED,)
