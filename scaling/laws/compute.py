"""Loss, and what is best, against training compute.

Where compute is in PF-days in a paper, so are its constants: 1 PF-day is `PF_DAY` FLOPs.
"""

from collections.abc import Mapping
from typing import Any

import jax

from scaling.laws.law import Input, Law, Parameter, power

PF_DAY = 8.64e19  # FLOPs

_COMPUTE = Input("C", "training FLOPs (or PF-days throughout)")
_EXPONENT = Parameter("alpha", "positive", (0.01, 1.0), bounds=(1e-3, 10.0))
_SIZE_OF_TUNED = 108e6  # parameters of the model at which Porian et al. anchor their rules


def _loss_in_compute(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["C"], -p["alpha"])


LOSS_IN_COMPUTE = Law(
    name="loss-in-compute",
    formula="E + A/C^alpha",
    citation="Porian et al. 2024, arXiv 2406.19146 (NeurIPS 2024)",
    inputs=(_COMPUTE,),
    target="nats/token, lowest at that compute",
    parameters=(
        Parameter("E", "positive", (0.05, 10.0), linear=True),
        Parameter("A", "positive", (1e-3, 10.0), unit="C^alpha", linear=True),
        _EXPONENT,
    ),
    predict=_loss_in_compute,
    notes="Fit it to the minima of isoFLOP curves, or to runs on one compute-optimal path. The paper counts the FLOPs"
    " of the output head.",
)


def _power_in_compute(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["a"] * power(x["C"], -p["b"])


LOSS_POWER_IN_COMPUTE = Law(
    name="loss-power-in-compute",
    formula="a/C^b",
    citation="Wei et al. 2024 (structured feed-forward layers), arXiv 2406.16450",
    inputs=(Input("C", "training FLOPs (or PF-days throughout)", distinct=2),),
    target="nats/token",
    parameters=(
        Parameter("a", "positive", (1e-2, 100.0), unit="C^b", linear=True),
        Parameter("b", "positive", (3e-3, 1.0), bounds=(1e-4, 10.0)),
    ),
    predict=_power_in_compute,
    notes="No floor: a local description over a few decades, made to compare slopes b between architectures. The paper"
    " gives no constants.",
)


def _optimal_in_compute(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["k"] * power(x["C"], p["a"])


OPTIMAL_IN_COMPUTE = Law(
    name="optimal-in-compute",
    formula="k*C^a",
    citation=f"Hoffmann et al. 2022, arXiv 2203.15556, approaches 1 and 2; {LOSS_IN_COMPUTE.citation}",
    inputs=(Input("C", "training FLOPs (or PF-days throughout)", distinct=3),),
    target="compute-optimal parameters (or tokens, batch, steps)",
    parameters=(
        Parameter("k", "positive", (1e-3, 1e15), bounds=(1e-12, 1e24), unit="C^-a", linear=True),
        Parameter("a", "real", (-0.5, 1.5), bounds=(-5.0, 5.0)),
    ),
    predict=_optimal_in_compute,
    notes="For optima that carry an interval and their budgets' refusals use fitting.isoflop. The exponent for"
    " parameters moves between 0.5 and 0.84 with the counting of the head, warm-up, schedule and tuning (Porian et"
    " al.); say which N is counted.",
)

KAPLAN_OPTIMAL_SIZE = {"k": 1.3e9, "a": 0.73}
"""Kaplan et al. 2020: non-embedding parameters, C in PF-days."""

DEEPSEEK_OPTIMAL = {
    "size": {"k": 0.1715, "a": 0.5243},
    "tokens": {"k": 5.8316, "a": 0.4757},
    "batch": {"k": 0.2920, "a": 0.3271},
    "lr": {"k": 0.3118, "a": -0.1250},
}
"""DeepSeek, arXiv 2401.02954: C = M*D in FLOPs; size is M, non-embedding FLOPs per token; batch in tokens."""


def _tuned(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["k"] * power(x["N"] / _SIZE_OF_TUNED, p["s"])


TUNED_IN_SIZE = Law(
    name="tuned-in-size",
    formula="k*(N/108e6)^s",
    citation=LOSS_IN_COMPUTE.citation,
    inputs=(Input("N", "parameters", distinct=3),),
    target="best batch or learning rate",
    parameters=(
        Parameter("k", "positive", (1e-7, 1e9), bounds=(1e-15, 1e18), linear=True),
        Parameter("s", "real", (-1.5, 1.5), bounds=(-5.0, 5.0)),
    ),
    predict=_tuned,
    notes="One fit for the batch, one for the rate, on runs of compute-optimal length. At batches up to 128 sequences"
    " the paper needs beta2 >= 0.99.",
)

PORIAN_TUNED = {"batch": {"k": 160.0, "s": 2 / 3}, "lr": {"k": 0.0047, "s": -1 / 3}}
"""Rounded as in the released code; batch in sequences of 2048 tokens."""

LAWS = (LOSS_IN_COMPUTE, LOSS_POWER_IN_COMPUTE, OPTIMAL_IN_COMPUTE, TUNED_IN_SIZE)
