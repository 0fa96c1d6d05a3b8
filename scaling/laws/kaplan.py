"""Power laws in one or two of size, data, steps and compute, scales written as (x0/x)^a."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from scaling.laws.law import Input, Law, Parameter, power

_KAPLAN = "Kaplan et al. 2020, arXiv 2001.08361"
_HENIGHAN = "Henighan et al. 2020, arXiv 2010.14701"
_SIZE = Input("N", "parameters, embeddings not counted", distinct=2)
_TOKENS = Input("D", "tokens", distinct=2)
_COMPUTE = Input("C", "training FLOPs (or PF-days throughout)", distinct=2)
_NOTE = "N leaves out embeddings. Schedules were not matched to the horizon: the paper's exponents carry that."


def _scale(name: str, of: str) -> Parameter:
    """x0 of (x0/x)^a, which is huge or tiny beside x where a is small."""
    return Parameter(name, "positive", (1e-8, 1e15), bounds=(1e-100, 1e100), unit=f"{of}^1")


def _exponent(name: str) -> Parameter:
    return Parameter(name, "positive", (0.02, 1.0), bounds=(1e-3, 10.0))


def _term(p: Mapping[str, Any], x: Mapping[str, Any], scale: str, of: str, exponent: str) -> jax.Array:
    return power(p[scale] / x[of], p[exponent])


def _one(name: str, i: Input, scale: str, exponent: str, target: str, notes: str) -> Law:
    """(x0/x)^a for one input."""
    return Law(
        name=name,
        formula=f"({scale}/{i.name})^{exponent}",
        citation=_KAPLAN,
        inputs=(i,),
        target=target,
        parameters=(_scale(scale, i.name), _exponent(exponent)),
        predict=lambda p, x: _term(p, x, scale, i.name, exponent),
        notes=notes,
    )


KAPLAN_SIZE = _one("kaplan-size", _SIZE, "Nc", "aN", "nats/token, trained to convergence on ample data", _NOTE)
KAPLAN_DATA = _one("kaplan-data", _TOKENS, "Dc", "aD", "nats/token, large model stopped early", _NOTE)
KAPLAN_COMPUTE = _one(
    "kaplan-compute",
    _COMPUTE,
    "Cc",
    "aC",
    "nats/token, lowest at that compute",
    f"C is Cmin, at a batch far below the critical one, without embeddings and head; in the paper, PF-days. {_NOTE}",
)


def _size_data(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return power(power(p["Nc"] / x["N"], p["aN"] / p["aD"]) + p["Dc"] / x["D"], p["aD"])


KAPLAN_SIZE_DATA = Law(
    name="kaplan-size-data",
    formula="((Nc/N)^(aN/aD) + Dc/D)^aD",
    citation=_KAPLAN,
    inputs=(_SIZE, _TOKENS),
    target="nats/token, stopped early",
    parameters=(_scale("Nc", "N"), _exponent("aN"), _scale("Dc", "D"), _exponent("aD")),
    predict=_size_data,
    notes=f"Over-fitting depends on N^(aN/aD)/D alone. The joint constants differ from those of the laws in one"
    f" variable. {_NOTE}",
)


def _size_steps(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return _term(p, x, "Nc", "N", "aN") + _term(p, x, "Sc", "Smin", "aS")


KAPLAN_SIZE_STEPS = Law(
    name="kaplan-size-steps",
    formula="(Nc/N)^aN + (Sc/Smin)^aS",
    citation=_KAPLAN,
    inputs=(_SIZE, Input("Smin", "optimiser steps at a batch far above the critical one", distinct=2)),
    target="nats/token",
    parameters=(_scale("Nc", "N"), _exponent("aN"), _scale("Sc", "Smin"), _exponent("aS")),
    predict=_size_steps,
    notes=f"Smin from measured steps: critical_batch.minimal_steps. Warm-up is left out of the fit. {_NOTE}",
)


def _early_stop(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["Sc"] * power(x["excess"], -1 / p["aS"])


EARLY_STOP = Law(
    name="early-stop",
    formula="Sc/excess^(1/aS)",
    citation=_KAPLAN,
    inputs=(Input("excess", "L(N, D) - L(N, infinite data), nats/token", distinct=2),),
    target="optimiser steps",
    parameters=(
        Parameter("Sc", "positive", (1e-3, 1e9), bounds=(1e-15, 1e18), linear=True),
        _exponent("aS"),
    ),
    predict=_early_stop,
    notes="A lower bound on the step at which over-fitting begins, with Sc and aS of kaplan-size-steps.",
)

KAPLAN_PUBLISHED = {
    "kaplan-size": {"Nc": 8.8e13, "aN": 0.076},
    "kaplan-data": {"Dc": 5.4e13, "aD": 0.095},
    "kaplan-compute": {"Cc": 3.1e8, "aC": 0.050},  # PF-days
    "kaplan-size-data": {"Nc": 6.4e13, "aN": 0.076, "Dc": 1.8e13, "aD": 0.103},
}
"""By law. The size and step constants of kaplan-size-steps are in part from memory, so they are not here."""


class ComputeExponents(NamedTuple):
    """Exponents of compute: loss falls as C^-loss; size, batch and steps grow as C to theirs."""

    loss: float
    size: float
    batch: float
    steps: float


def compute_exponents(a_size: float, a_steps: float, a_batch: float) -> ComputeExponents:
    """Exponents of Cmin on the compute-optimal path: aC = 1/(1/aS + 1/aB + 1/aN), then aC/aN, aC/aB, aC/aS.

    Kaplan et al. 2020. Tokens grow with batch and steps together. ValueError unless all are positive.
    """
    if not (a_size > 0 and a_steps > 0 and a_batch > 0):
        raise ValueError(f"a_size, a_steps, a_batch: {a_size}, {a_steps}, {a_batch} must be > 0")
    loss = 1 / (1 / a_steps + 1 / a_batch + 1 / a_size)
    return ComputeExponents(loss, loss / a_size, loss / a_batch, loss / a_steps)


def _with_floor(name: str, i: Input, scale: str) -> Law:
    """Linf + (x0/x)^a."""
    return Law(
        name=name,
        formula=f"Linf + ({scale}/{i.name})^a",
        citation=_HENIGHAN,
        inputs=(i,),
        target="nats/token (per image token for images)",
        parameters=(
            Parameter("Linf", "positive", (0.05, 10.0), linear=True),
            _scale(scale, i.name),
            _exponent("a"),
        ),
        predict=lambda p, x: p["Linf"] + _term(p, x, scale, i.name, "a"),
        notes="One fit a domain. N leaves out embeddings; C is in PF-days in the paper and its scale with it. A scale"
        " far below the data is no error: it is where the reducible loss is 1. Fit details are unverified.",
    )


HENIGHAN_SIZE = _with_floor("henighan-size", Input("N", _SIZE.unit), "N0")
HENIGHAN_COMPUTE = _with_floor("henighan-compute", Input("C", _COMPUTE.unit), "C0")

HENIGHAN_PUBLISHED = {
    "language": {"size": (0.0, 1.47e14, 0.070), "compute": (0.0, 3.47e8, 0.048), "optimum": (3.3e-13, 0.73)},
    "image 8x8": {"size": (3.12, 8.0e1, 0.24), "compute": (3.13, 1.8e-8, 0.19), "optimum": (5.3e-14, 0.64)},
    "image 16x16": {"size": (2.64, 2.8e2, 0.22), "compute": (2.64, 1.6e-8, 0.16), "optimum": (4.8e-12, 0.75)},
    "image 32x32": {"size": (2.20, 6.3e1, 0.13), "compute": (2.21, 3.6e-9, 0.10), "optimum": (1.6e-13, 0.65)},
    "image VQ 16x16": {"size": (3.99, 2.7e4, 0.13), "compute": (4.09, 6.1e-7, 0.11), "optimum": (6.2e-14, 0.64)},
    "image VQ 32x32": {"size": (3.07, 1.9e4, 0.14), "compute": (3.17, 2.6e-6, 0.12), "optimum": (9.4e-13, 0.70)},
    "text-to-image, image": {"size": (2.0, 5.1e3, 0.16), "compute": (1.93, 1.5e-6, 0.15), "optimum": (9.4e-13, 0.70)},
    "image-to-text, image": {"size": (2.0, 5.5e3, 0.15), "compute": (1.97, 1.5e-6, 0.16), "optimum": (3.3e-12, 0.72)},
    "video 64x64": {"size": (1.01, 3.7e4, 0.24), "compute": (0.95, 2.2e-5, 0.14), "optimum": (1.13e-12, 0.71)},
    "math": {"size": (0.28, 1.1e4, 0.16), "compute": (0.14, 1.4e-5, 0.17), "optimum": (2.3e-12, 0.69)},
}
"""By domain: (Linf, x0, a) of the laws in size and in compute (PF-days), and (c0, b) of N_opt = (C/c0)^b."""

LAWS = (
    KAPLAN_SIZE,
    KAPLAN_DATA,
    KAPLAN_COMPUTE,
    KAPLAN_SIZE_DATA,
    KAPLAN_SIZE_STEPS,
    EARLY_STOP,
    HENIGHAN_SIZE,
    HENIGHAN_COMPUTE,
)
