"""Loss against the shares of a training mixture of many domains.

Members of the families here take the table's own column names as inputs: one share a domain. Parameters of a domain are
named "t[domain]".
"""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Family, Input, Law, Parameter, power

_YE = "Ye et al. 2024, arXiv 2403.16952 (ICLR 2025)"
_GE = "Ge et al. 2024, arXiv 2405.14908"
_DOMAINS = "column names of the shares, one a domain"
_OWN_SHARE = Input(
    "r", "token share of the domain on which the loss is measured", 0.0, 1.0, low_included=True, share_of="measured"
)
_STEPS = Input("S", "optimiser steps")


def share(domain: str) -> Input:
    """The input of one domain's share; two values of it tell its one coefficient."""
    return Input(domain, "token share of the training mixture", 0.0, 1.0, low_included=True, distinct=2)


def checked(domains: Iterable[str]) -> tuple[str, ...]:
    """Domains as a tuple. ValueError for a string, fewer than two, or a repeated one."""
    names = (domains,) if isinstance(domains, str) else tuple(map(str, domains))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"domains: {names} must be at least two different column names, one a share of the mixture")
    return names


def _two(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["c"] + jnp.exp(p["k"] * x["r"] + p["b"])


DATA_MIXING_TWO = Law(
    name="data-mixing-two",
    formula="c + exp(k*r + b)",
    citation=f"{_YE}, two domains",
    inputs=(_OWN_SHARE,),
    target="nats/token",
    parameters=(
        Parameter("c", "positive", (0.05, 10.0), linear=True),
        Parameter("k", "real", (-10.0, 10.0), bounds=(-50.0, 50.0)),
        Parameter("b", "real", (-6.0, 2.0), bounds=(-20.0, 10.0)),
    ),
    predict=_two,
    notes="One fit a model size, step and loss. Over a short range of r the offset c is hardly identified: compare"
    " predictions, and do not read c as an entropy.",
)


def data_mixing(domains: Iterable[str]) -> Law:
    """c + exp(sum_j t_j r_j): the loss of one target against the shares of M domains; M + 1 parameters.

    The paper writes c + k*exp(sum_j t'_j r_j). As the shares sum to 1, k is no parameter of its own: t_j = t'_j + log k
    (see `from_published`). ValueError for fewer than two domains, or a repeated one.
    """
    return _data_mixing(checked(domains))


@cache
def _data_mixing(domains: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        return p["c"] + jnp.exp(sum(p[f"t[{d}]"] * x[d] for d in domains))

    return Law(
        name="data-mixing",
        formula="c + exp(sum_j t[j]*r[j])",
        citation=_YE,
        inputs=tuple(map(share, domains)),
        target="nats/token",
        parameters=(
            Parameter("c", "positive", (0.05, 10.0), linear=True),
            *(Parameter(f"t[{d}]", "real", (-5.0, 2.0), bounds=(-1e4, 50.0)) for d in domains),
        ),
        predict=predict,
        notes="One fit a model size, step and target. The paper's k*exp(sum t' r) is written with t = t' + log k, since"
        " the shares sum to 1. One target's minimum is a vertex of the simplex.",
        simplex=domains,
        arguments={"domains": list(domains)},
    )


def from_published(log_c: float, log_k: float, t: Mapping[str, float]) -> dict[str, float]:
    """Parameters of `data_mixing` from the paper's log c, log k and t (by domain): c = exp(log c), t_j + log k."""
    return {"c": math.exp(log_c), **{f"t[{domain}]": value + log_k for domain, value in t.items()}}


MOST_UNITS = 1000


def data_mixing_implicit(domains: Iterable[str], units: int) -> Law:
    """c + sum_i exp(sum_j t_ij r_j), i = 1..`units`: a target that is a mixture of unknown domains; M*units + 1
    parameters.

    The paper's network has softmax output weights s_i and a bias; since the shares sum to 1, log s_i is part of every
    t_ij. It trains by AdamW and boosts 30 copies; this is one network. ValueError for bad domains, or units < 1.
    """
    if not (isinstance(units, int) and 1 <= units <= MOST_UNITS):
        raise ValueError(f"units: {units!r} must be a whole number from 1 to {MOST_UNITS}, of implicit domains")
    return _data_mixing_implicit(checked(domains), units)


@cache
def _data_mixing_implicit(domains: tuple[str, ...], units: int) -> Law:
    terms = tuple(tuple(f"t{i + 1}[{d}]" for d in domains) for i in range(units))

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        hidden = [jnp.exp(sum(p[name] * x[d] for name, d in zip(names, domains, strict=True))) for names in terms]
        return p["c"] + sum(hidden)

    return Law(
        name="data-mixing-implicit",
        formula="c + sum_i exp(sum_j t_i[j]*r[j])",
        citation=f"{_YE}, implicit domains",
        inputs=tuple(map(share, domains)),
        target="nats/token",
        parameters=(
            Parameter("c", "positive", (0.05, 10.0), linear=True),
            *(Parameter(name, "real", (-6.0, 2.0), bounds=(-1e4, 50.0)) for names in terms for name in names),
        ),
        predict=predict,
        notes="The softmax weights s_i of the paper are part of t: t_i[j] = t'_i[j] + log s_i. Units may be exchanged;"
        " a fit orders them by their first coefficient.",
        exchangeable=terms if units > 1 else (),
        simplex=domains,
        arguments={"domains": list(domains), "units": units},
    )


def _power_and_constant(coefficient: str, exponent: str, constant: str, variable: str) -> dict[str, Any]:
    """constant + coefficient/variable^exponent, all positive."""

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        return p[constant] + p[coefficient] * power(x[variable], -p[exponent])

    return {
        "formula": f"{constant} + {coefficient}/{variable}^{exponent}",
        "parameters": (
            Parameter(constant, "positive", (0.05, 10.0), linear=True),
            Parameter(coefficient, "positive", (1e-3, 10.0), unit=f"{variable}^{exponent}", linear=True),
            Parameter(exponent, "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
        ),
        "predict": predict,
    }


LOSS_IN_STEPS = Law(
    name="loss-in-steps",
    citation=f"{_YE}, first stage of its pipeline",
    inputs=(_STEPS,),
    target="nats/token",
    notes="One fit a model size and mixture. The paper shares beta across mixtures: pool this law.",
    **_power_and_constant("B", "beta", "E1", "S"),
)

LOSS_IN_SIZE = Law(
    name="loss-in-size",
    citation=f"{_YE}, second stage of its pipeline",
    inputs=(Input("N", "parameters"),),
    target="nats/token",
    notes="One fit a mixture, at one number of steps. N leaves embeddings out in the paper (70M to 410M: 18.9M, 85.1M,"
    " 201.5M, 302.3M).",
    **_power_and_constant("A", "alpha", "E2", "N"),
)


def _bimix(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return power(x["r"], -p["alpha"]) * (p["B"] * power(x["S"], -p["beta"]) + p["C"])


_BIMIX_PARAMETERS = (
    Parameter("alpha", "positive", (0.005, 1.0), bounds=(1e-4, 10.0)),
    Parameter("B", "positive", (1e-3, 10.0), unit="S^beta", linear=True),
    Parameter("beta", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
    Parameter("C", "positive", (0.05, 10.0), linear=True),
)

BIMIX = Law(
    name="bimix",
    formula="(B/S^beta + C)/r^alpha",
    citation=_GE,
    inputs=(Input("r", _OWN_SHARE.unit, 0.0, 1.0, share_of="measured"), _STEPS),
    target="nats/token",
    parameters=_BIMIX_PARAMETERS,
    predict=_bimix,
    notes="One fit a domain, on its own loss. The paper's A is fixed at 1: it only rescales B and C. The other domains"
    " do not enter.",
)


def bimix_domains(domains: Iterable[str]) -> Law:
    """BiMix of several domains in one table: a row is the loss of the domain that its column `domain` names.

    4 parameters a domain. A row needs a share above 0 of its own domain only. ValueError for bad domains.
    """
    return _bimix_domains(checked(domains))


@cache
def _bimix_domains(domains: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        own = {q.name: by_label([p[f"{q.name}[{d}]"] for d in domains], x["domain"]) for q in _BIMIX_PARAMETERS}
        return _bimix(own, {"r": by_label([x[d] for d in domains], x["domain"]), "S": x["S"]})

    def of_domain(parameter: Parameter, domain: str) -> Parameter:
        unit = parameter.unit and f"{parameter.unit}[{domain}]"
        return Parameter(
            f"{parameter.name}[{domain}]",
            parameter.transform,
            parameter.start,
            parameter.bounds,
            unit,
            parameter.linear,
        )

    return Law(
        name="bimix-domains",
        formula="(B[i]/S^beta[i] + C[i])/r[i]^alpha[i], i the domain of the row",
        citation=_GE,
        inputs=(*map(share, domains), _STEPS, domain_of_row(domains)),
        target="nats/token",
        parameters=tuple(of_domain(q, d) for d in domains for q in _BIMIX_PARAMETERS),
        predict=predict,
        notes="Equals one fit of bimix a domain. Leave out rows whose own share is 0: the law is infinite there.",
        simplex=domains,
        arguments={"domains": list(domains)},
    )


def domain_of_row(domains: tuple[str, ...]) -> Input:
    """The label input: whose loss a row holds."""
    return Input("domain", "share column of the domain on which the row's loss is measured", labels=domains)


def by_label(values: list[Any], code: Any) -> jax.Array:
    """For each point the value at its label's place: scalars, or arrays of the points' shape."""
    # A sum of selections: gathers, and their derivatives, are slow on CPU.
    return sum(jnp.where(jnp.asarray(code) == place, value, 0.0) for place, value in enumerate(values))  # type: ignore


def family(make: Any, formula: str, citation: str, **more: str) -> Family:
    """The family of a function of this module's kind, named after it."""
    arguments = {"domains": _DOMAINS, **more}
    return Family(make.__name__.replace("_", "-"), formula, citation, "nats/token", arguments, make)


LAWS = (DATA_MIXING_TWO, LOSS_IN_STEPS, LOSS_IN_SIZE, BIMIX)
FAMILIES = (
    family(data_mixing, "c + exp(sum_j t[j]*r[j])", _YE),
    family(
        data_mixing_implicit, "c + sum_i exp(sum_j t_i[j]*r[j])", f"{_YE}, implicit domains", units="implicit domains"
    ),
    family(bimix_domains, "(B[i]/S^beta[i] + C[i])/r[i]^alpha[i]", _GE),
)
