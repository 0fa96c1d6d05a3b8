"""Loss against size, tokens and the shares of a training mixture, added up or joined.

Members take the table's own column names as inputs: one share a domain. Parameters of a domain are named "C[domain]".
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.mixing import checked, family, share

_SHUKOR = "Shukor et al. 2025, arXiv 2507.09404"


def _mixture_term(p: Mapping[str, Any], x: Mapping[str, Any], domains: tuple[str, ...]) -> jax.Array:
    return 1 / sum(p[f"C[{d}]"] * power(x[d], p[f"gamma[{d}]"]) for d in domains)


def _mixture_parameters(domains: tuple[str, ...]) -> tuple[Parameter, ...]:
    return (
        Parameter("E", "positive", (0.05, 10.0), linear=True),
        *(Parameter(f"C[{d}]", "positive", (0.05, 20.0)) for d in domains),
        *(Parameter(f"gamma[{d}]", "positive", (0.02, 2.0), bounds=(1e-4, 20.0)) for d in domains),
    )


def _shukor(name: str, formula: str, domains: tuple[str, ...], notes: str, **law: Any) -> Law:
    sized = (Input("N", "parameters"), Input("D", "tokens")) if name != "mixture-term" else ()
    return Law(
        name=name,
        formula=formula,
        citation=_SHUKOR,
        inputs=(*sized, *map(share, domains)),
        target="nats/token",
        notes=f"One fit a target. {notes}",
        simplex=domains,
        arguments={"domains": list(domains)},
        **law,
    )


def mixture_term(domains: Iterable[str]) -> Law:
    """E + 1/(sum_i C_i h_i^gamma_i): the laws of Shukor et al. at one size and one number of tokens; 1 + 2k parameters.

    ValueError for bad domains.
    """
    return _term(checked(domains))


@cache
def _term(domains: tuple[str, ...]) -> Law:
    return _shukor(
        "mixture-term",
        "E + 1/(sum_i C[i]*h[i]^gamma[i])",
        domains,
        "The additive law at one N and D, whose terms in them are then part of E.",
        parameters=_mixture_parameters(domains),
        predict=lambda p, x: p["E"] + _mixture_term(p, x, domains),
    )


def mixture_additive(domains: Iterable[str]) -> Law:
    """E + 1/(sum_i C_i h_i^gamma_i) + A/N^alpha + B/D^beta; 5 + 2k parameters. ValueError for bad domains."""
    return _additive(checked(domains))


@cache
def _additive(domains: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        sized = p["A"] * power(x["N"], -p["alpha"]) + p["B"] * power(x["D"], -p["beta"])
        return p["E"] + _mixture_term(p, x, domains) + sized

    return _shukor(
        "mixture-additive",
        "E + 1/(sum_i C[i]*h[i]^gamma[i]) + A/N^alpha + B/D^beta",
        domains,
        "The best mixture does not depend on N and D. Drop checkpoints before about a third of the longest run.",
        parameters=(
            *_mixture_parameters(domains),
            Parameter("A", "positive", (1e-3, 10.0), unit="N^alpha", linear=True),
            Parameter("B", "positive", (1e-3, 10.0), unit="D^beta", linear=True),
            Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
            Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        ),
        predict=predict,
    )


def mixture_joint(domains: Iterable[str]) -> Law:
    """E + 1/(sum_i C_i h_i^gamma_i) + A_h/N^alpha + B_h/D^beta, A_h = (sum_i A_i^(1/gamma_A) h_i)^gamma_A, B_h alike;
    5 + 4k parameters.

    The paper writes A_h = (sum_i C^A_i h_i)^gamma_A; A_i = (C^A_i)^gamma_A is the coefficient of domain i alone, in
    units of N^alpha whatever gamma_A. ValueError for bad domains.
    """
    return _joint(checked(domains))


@cache
def _joint(domains: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        size = _blend(p, x, domains, "A") * power(x["N"], -p["alpha"])
        data = _blend(p, x, domains, "B") * power(x["D"], -p["beta"])
        return p["E"] + _mixture_term(p, x, domains) + size + data

    def coefficients(letter: str, unit: str) -> list[Parameter]:
        return [Parameter(f"{letter}[{d}]", "positive", (1e-2, 5.0), unit=unit) for d in domains]

    return _shukor(
        "mixture-joint",
        "E + 1/(sum_i C[i]*h[i]^gamma[i]) + (sum_i A[i]^(1/gamma_A)*h[i])^gamma_A/N^alpha"
        " + (sum_i B[i]^(1/gamma_B)*h[i])^gamma_B/D^beta",
        domains,
        "A[i] is the paper's C^A_i to the power gamma_A. The best mixture moves with N and D. The joint form is quoted"
        " from memory; its count of parameters, 37 for 8 domains, agrees with the paper.",
        parameters=(
            *_mixture_parameters(domains),
            *coefficients("A", "N^alpha"),
            *coefficients("B", "D^beta"),
            Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
            Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
            Parameter("gamma_A", "positive", (0.3, 3.0), bounds=(0.05, 20.0)),
            Parameter("gamma_B", "positive", (0.3, 3.0), bounds=(0.05, 20.0)),
        ),
        predict=predict,
    )


def _blend(p: Mapping[str, Any], x: Mapping[str, Any], domains: tuple[str, ...], letter: str) -> jax.Array:
    """(sum_i a_i^(1/gamma) h_i)^gamma, scaled by the largest a_i, since 1/gamma may be 20."""
    gamma, log_k = p[f"gamma_{letter}"], [jnp.log(p[f"{letter}[{d}]"]) for d in domains]
    largest = jax.lax.stop_gradient(jnp.max(jnp.stack(log_k), axis=0))
    total = sum(jnp.exp((log - largest) / gamma) * x[d] for log, d in zip(log_k, domains, strict=True))
    return jnp.exp(largest + gamma * jnp.log(total))


LAWS = ()
FAMILIES = (
    family(mixture_term, "E + 1/(sum_i C[i]*h[i]^gamma[i])", _SHUKOR),
    family(mixture_additive, "E + 1/(sum_i C[i]*h[i]^gamma[i]) + A/N^alpha + B/D^beta", _SHUKOR),
    family(mixture_joint, "E + 1/(sum_i C[i]*h[i]^gamma[i]) + A_h/N^alpha + B_h/D^beta", _SHUKOR),
)
