"""Loss of each domain of a mixture as capacity plus noise: the model shares its capacity out, each domain sees its own
tokens.

Letters: K domains, M points.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Input, Law, Parameter, power
from scaling.laws.mixing import by_label, checked, domain_of_row, family, share

_SOURCE = "arXiv 2606.08167"
_FORMULA = "c[i]/x[i]^b[i] + A[i]/(D*h[i])^a[i] + E[i]"
_NEWTON_STEPS = 10


def capacity_noise(domains: Iterable[str]) -> Law:
    """c_i*x_i^(-b_i) + A_i*(D*h_i)^(-a_i) + E_i, with x the capacity that the mixture h gives each domain; 5K + 1
    parameters.

    x minimises sum_i h_i c_i x_i^(-b_i) subject to sum_i x_i = N + (K-1)*H and x_i >= H. A row is the loss of the
    domain that its column `domain` names; all domains are fitted together. ValueError for bad domains.
    """
    return _capacity_noise(checked(domains))


@cache
def _capacity_noise(domains: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        def own(letter: str) -> jax.Array:
            return by_label([p[f"{letter}[{d}]"] for d in domains], x["domain"])

        def all_of(letter: str) -> jax.Array:
            return jnp.stack([p[f"{letter}[{d}]"] for d in domains]).reshape(-1, *[1] * jnp.ndim(x["N"]))

        share_KxM = jnp.stack([x[d] for d in domains])
        price = log_price(all_of("c"), all_of("b"), share_KxM, x["N"], p["H"])
        share = by_label([x[d] for d in domains], x["domain"])
        log_capacity = log_capacities(own("c"), own("b"), share, price, p["H"])
        noise = own("A") * power(x["D"] * share, -own("a"))
        return own("c") * jnp.exp(-own("b") * log_capacity) + noise + own("E")

    return Law(
        name="capacity-noise",
        formula=f"{_FORMULA}, i the domain of the row",
        citation=_SOURCE,
        inputs=(Input("N", "parameters"), Input("D", "tokens"), *map(share, domains), domain_of_row(domains)),
        target="nats/token",
        parameters=(
            *(q for d in domains for q in _of_domain(d)),
            Parameter("H", "positive", (1e-6, 0.03), bounds=(1e-9, 0.1), unit="N^1"),
        ),
        predict=predict,
        notes="In the source N is in millions of parameters, D in billions of tokens; the exponents do not depend on"
        " it. Leave out rows whose own share is 0, as the source does: the law is infinite there. H, the least capacity"
        " of a domain, must stay below N. No domain's tokens lower another's loss: unfit where domains overlap.",
        simplex=domains,
        arguments={"domains": list(domains)},
    )


def _of_domain(domain: str) -> tuple[Parameter, ...]:
    return (
        Parameter(f"c[{domain}]", "positive", (0.05, 5.0), unit=f"N^b[{domain}]"),
        Parameter(f"b[{domain}]", "positive", (0.05, 1.0), bounds=(1e-3, 5.0)),
        Parameter(f"A[{domain}]", "positive", (1e-3, 5.0), unit=f"D^a[{domain}]", linear=True),
        Parameter(f"a[{domain}]", "positive", (0.05, 1.0), bounds=(1e-3, 5.0)),
        Parameter(f"E[{domain}]", "positive", (0.05, 5.0), linear=True),
    )


def log_capacities(c: Any, b: Any, h: Any, log_mu: Any, least: Any) -> jax.Array:
    """log x, x = max(H, (h*b*c/mu)^(1/(b+1))): what a domain gets at the price mu."""
    return jnp.maximum(jnp.log(least), (jnp.log(b * c) + _log_or_low(h) - log_mu) / (b + 1))


def log_price(c_Kx1: Any, b_Kx1: Any, h_KxM: Any, n_M: Any, least: Any) -> jax.Array:
    """Log of the mu at which the capacities of the K domains sum to N + (K-1)*H, [M].

    Newton's method on log sum x against log mu: the sum is convex and falling, and the start, where one domain takes
    everything, lies left of the root, so that no step overshoots. First derivatives are those of the implicit function.
    """
    values = (c_Kx1, b_Kx1, h_KxM, least, jnp.log(n_M + (len(h_KxM) - 1) * least))
    c, b, h, low, log_total = jax.lax.stop_gradient(values)

    def weights(log_mu: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        log_x_KxM = log_capacities(c, b, h, log_mu[None], low)
        log_sum_M = jax.nn.logsumexp(log_x_KxM, axis=0)
        weight_KxM = jnp.exp(log_x_KxM - log_sum_M[None])
        fall_M = jnp.sum(weight_KxM * (log_x_KxM > jnp.log(low)) / (b + 1), axis=0)
        return log_sum_M, weight_KxM, jnp.maximum(fall_M, 1e-6)

    def newton(_: Any, log_mu: jax.Array) -> jax.Array:
        log_sum_M, _, fall_M = weights(log_mu)
        return log_mu + (log_sum_M - log_total) / fall_M

    start_M = jnp.max(jnp.log(b * c) + _log_or_low(h) - (b + 1) * log_total[None], axis=0)
    log_mu = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start_M)
    _, weight_KxM, fall_M = weights(log_mu)
    log_x_KxM = log_capacities(*values[:3], log_mu[None], least)
    excess_M = jnp.sum(weight_KxM * (log_x_KxM - jax.lax.stop_gradient(log_x_KxM)), axis=0) - (values[4] - log_total)
    return log_mu + excess_M / fall_M


def _log_or_low(h: Any) -> jax.Array:
    """log h, and far below any capacity where h is 0."""
    inside = h > 0
    return jnp.where(inside, jnp.log(jnp.where(inside, h, 1.0)), -1e3)


LAWS = ()
FAMILIES = (family(capacity_noise, _FORMULA, _SOURCE),)
