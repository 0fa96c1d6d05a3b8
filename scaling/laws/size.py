"""Loss against model size and data."""

from collections.abc import Mapping
from typing import Any

import jax

from scaling.laws.law import Input, Law, Parameter, power


def _chinchilla(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["N"], -p["alpha"]) + p["B"] * power(x["D"], -p["beta"])


CHINCHILLA = Law(
    name="chinchilla",
    formula="E + A/N^alpha + B/D^beta",
    citation="Hoffmann et al. 2022, arXiv 2203.15556, approach 3",
    inputs=(Input("N", "parameters"), Input("D", "tokens")),
    target="nats/token",
    parameters=(
        Parameter("E", "positive", (0.05, 10.0), linear=True),
        Parameter("A", "positive", (1e-3, 10.0), unit="N^alpha", linear=True),
        Parameter("B", "positive", (1e-3, 10.0), unit="D^beta", linear=True),
        Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
    ),
    predict=_chinchilla,
    notes="N counts embeddings. The schedule must be matched to each horizon D.",
)

LAWS = (CHINCHILLA,)
