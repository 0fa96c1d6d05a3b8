"""How batch trades steps against tokens, and the loss curve that follows from it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.kaplan import KAPLAN_SIZE_STEPS
from scaling.laws.law import Input, Law, Parameter, power

_KAPLAN = "Kaplan et al. 2020, arXiv 2001.08361"
_NEWTON = 24  # steps; convergence is monotone and quadratic


def minimal_steps(steps: Any, batch: Any, critical: Any) -> Any:
    """Steps that an infinite batch would need for the same loss: S/(1 + Bcrit/B). Batches in one unit."""
    return steps / (1 + critical / batch)


def minimal_compute(compute: Any, batch: Any, critical: Any) -> Any:
    """Compute that a tiny batch would need for the same loss: C/(1 + B/Bcrit). Batches in one unit."""
    return compute / (1 + batch / critical)


def _steps(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["Smin"] * (1 + p["Bcrit"] / x["B"])


STEPS_FOR_BATCH = Law(
    name="steps-for-batch",
    formula="Smin*(1 + Bcrit/B)",
    citation=_KAPLAN,
    inputs=(Input("B", "batch, tokens"),),
    target="optimiser steps to a given loss",
    parameters=(
        Parameter("Smin", "positive", (1.0, 1e9), bounds=(1e-6, 1e15)),
        Parameter("Bcrit", "positive", (1e-3, 1e3), unit="B^1"),
    ),
    predict=_steps,
    notes="One fit a loss. The same as (S/Smin - 1)*(E/Emin - 1) = 1 with E = B*S tokens and Bcrit = Emin/Smin.",
)


def _critical_batch(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["Bstar"] * power(x["L"], -1 / p["aB"])


CRITICAL_BATCH = Law(
    name="critical-batch",
    formula="Bstar/L^(1/aB)",
    citation=_KAPLAN,
    inputs=(Input("L", "loss, nats/token", distinct=2),),
    target="critical batch, tokens",
    parameters=(
        Parameter("Bstar", "positive", (1.0, 1e14), bounds=(1e-9, 1e30), linear=True),
        Parameter("aB", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
    ),
    predict=_critical_batch,
    notes="Independent of size. Fit it to the Bcrit of steps-for-batch at several losses.",
)

CRITICAL_BATCH_PUBLISHED = {"Bstar": 2e8, "aB": 0.21}


def _loss_of_batch(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    """Root of L = a + c*(1 + q*L^(-1/aB))^aS by Newton steps on log L.

    The logarithm of the right side is convex and falls in log L; from log(a + c), below the root, the steps rise to it
    without overshooting. The last step carries the derivative, by the implicit function theorem.
    """
    size, steps = power(p["Nc"] / x["N"], p["aN"]), jnp.log(p["Sc"] / x["S"]) * p["aS"]
    log_ratio = jnp.log(p["Bstar"] / x["B"])

    def newton(log_loss: jax.Array) -> jax.Array:
        log_q = log_ratio - log_loss / p["aB"]
        by_steps = jnp.exp(steps + p["aS"] * jax.nn.softplus(log_q))
        falls = p["aS"] / p["aB"] * jax.nn.sigmoid(log_q) * by_steps / (size + by_steps)
        return log_loss - (log_loss - jnp.log(size + by_steps)) / (1 + falls)

    start = jnp.log(size + jnp.exp(steps))
    root = jax.lax.fori_loop(0, _NEWTON, lambda _, log_loss: newton(log_loss), jax.lax.stop_gradient(start))
    return jnp.exp(newton(jax.lax.stop_gradient(root)))


SIZE_STEPS_BATCH = Law(
    name="size-steps-batch",
    formula="L with L = (Nc/N)^aN + (Sc*(1 + Bcrit/B)/S)^aS, Bcrit = Bstar/L^(1/aB)",
    citation="Su et al. 2024 (Unraveling the mystery of scaling laws, part I), arXiv 2403.06563",
    inputs=(
        Input("N", "parameters, embeddings not counted", distinct=2),
        Input("S", "optimiser steps"),
        Input("B", "batch, tokens", distinct=2),
    ),
    target="nats/token",
    parameters=(
        *KAPLAN_SIZE_STEPS.parameters[:2],
        Parameter("Sc", "positive", (1e-8, 1e15), bounds=(1e-100, 1e100), unit="S^1"),
        KAPLAN_SIZE_STEPS.parameters[3],
        Parameter("Bstar", "positive", (1e-3, 1e6), bounds=(1e-12, 1e30), unit="B^1"),
        CRITICAL_BATCH.parameters[1],
    ),
    predict=_loss_of_batch,
    notes="Whole curves at constant batch; warm-up left out. The equation has one root, found to rounding. The paper"
    " estimates in stages (size, then steps, then critical batch); one joint fit does it here. Its constants, which"
    " vary with rate, context, batch and data, are unverified and not given.",
)

LAWS = (STEPS_FOR_BATCH, CRITICAL_BATCH, SIZE_STEPS_BATCH)
