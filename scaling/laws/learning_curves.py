"""Error or loss against the amount of data: the forms M1 to M4, broken power laws, and rising accuracy."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scaling.laws.law import Family, Input, Law, Parameter, power

_M_FORMS = "Alabdulmohsin, Neyshabur and Zhai 2022, arXiv 2209.06640"
_LOSS = "error or loss, in any unit"
_NEWTON = 24  # steps; convergence is monotone and quadratic, and slow only where alpha is tiny
_ASYMPTOTE = Parameter("e_inf", "positive", (1e-3, 10.0), linear=True)
_EXPONENT = Parameter("c", "positive", (0.03, 2.0), bounds=(1e-3, 10.0))


def _data(distinct: int) -> tuple[Input]:
    return (Input("x", "examples or tokens seen", distinct=distinct),)


def _m1(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["beta"] * power(x["x"], -p["c"])


M1 = Law(
    name="m1",
    formula="beta/x^c",
    citation=f"{_M_FORMS}, M1",
    inputs=_data(2),
    target=_LOSS,
    parameters=(Parameter("beta", "positive", (1e-3, 10.0), unit="x^c", linear=True), _EXPONENT),
    predict=_m1,
    notes="The paper writes beta*x^c with c < 0, and fits by least squares in logs.",
)


def _m2(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["e_inf"] + _m1(p, x)


M2 = Law(
    name="m2",
    formula="e_inf + beta/x^c",
    citation=f"{_M_FORMS}, M2",
    inputs=_data(3),
    target=_LOSS,
    parameters=(_ASYMPTOTE, *M1.parameters),
    predict=_m2,
    notes="The paper minimises squared residuals of log(y - e_inf), alternating from c = 0.5, which on some translation"
    " curves ends in a local optimum: the global one of that objective has e_inf = 0, which is M1.",
)


def _m3(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["beta"] * power(1 / x["x"] + p["gamma"], p["c"])


M3 = Law(
    name="m3",
    formula="beta*(1/x + gamma)^c",
    citation=f"{_M_FORMS}, M3",
    inputs=_data(3),
    target=_LOSS,
    parameters=(
        Parameter("beta", "positive", (1e-3, 10.0), unit="x^c", linear=True),
        Parameter("gamma", "positive", (1e-3, 10.0), unit="x^-1"),
        _EXPONENT,
    ),
    predict=_m3,
    notes="c > 0, as in the released code (the paper writes the exponent -c with c < 0). The limit is beta*gamma^c.",
)


@jax.custom_jvp
def _logit_of_excess(alpha: jax.Array, q: jax.Array) -> jax.Array:
    """w with log sigmoid(w) - alpha*log sigmoid(-w) = q: Newton from the side where it converges monotonically.

    The left side is w + (alpha - 1)*softplus(w), concave for alpha < 1 and convex above, between the lines w and
    alpha*w; the line on the relevant side gives the start.
    """

    def step(_: int, w: jax.Array) -> jax.Array:
        slope = 1 + (alpha - 1) * jax.nn.sigmoid(w)
        return w - (w + (alpha - 1) * jax.nn.softplus(w) - q) / slope

    start = jnp.where(q < 0, q, q / alpha)
    return jax.lax.fori_loop(0, _NEWTON, step, start)


@_logit_of_excess.defjvp
def _logit_of_excess_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    (alpha, q), (d_alpha, d_q) = primals, tangents
    w = _logit_of_excess(alpha, q)
    return w, (d_q - jax.nn.softplus(w) * d_alpha) / (1 + (alpha - 1) * jax.nn.sigmoid(w))


def _m4(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    span = p["e_0"] - p["e_inf"]
    log_right = jnp.log(p["beta"]) - p["c"] * jnp.log(x["x"])
    q = log_right - (1 - p["alpha"]) * jnp.log(span)
    w = _logit_of_excess(jnp.broadcast_to(p["alpha"], jnp.shape(q)), q)
    return p["e_inf"] + span * jax.nn.sigmoid(w)


M4 = Law(
    name="m4",
    formula="y with (y - e_inf)/(e_0 - y)^alpha = beta/x^c",
    citation=f"{_M_FORMS}, M4",
    inputs=_data(5),
    target=_LOSS,
    parameters=(
        Parameter("e_inf", "positive", (1e-3, 10.0)),
        Parameter("beta", "positive", (1e-2, 10.0), unit="x^c"),
        Parameter("c", "positive", (0.03, 2.0), bounds=(1e-3, 50.0)),
        Parameter("alpha", "positive", (0.03, 3.0), bounds=(1e-6, 50.0)),
        Parameter("e_0", "positive", (0.1, 100.0)),
    ),
    predict=_m4,
    notes="e_0 is the loss at chance: where it is known, hold it there (with_fixed), since a curve that starts"
    " far below chance does not tell it. alpha = 0 is M2, while y < e_0. y is found by Newton steps on the logit of"
    " (y - e_inf)/(e_0 - e_inf), to rounding, and differentiated through the equation.",
)


@cache
def _bnsl(breaks: int) -> Law:
    numbers = range(1, breaks + 1)

    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        log_x = jnp.log(x["x"])
        log_y = jnp.log(p["b"]) - p["c0"] * log_x
        for i in numbers:
            over = jax.nn.softplus((log_x - jnp.log(p[f"d{i}"])) / p[f"f{i}"])
            log_y = log_y - p[f"c{i}"] * p[f"f{i}"] * over
        return p["a"] + jnp.exp(log_y)

    def of_break(i: int) -> tuple[Parameter, ...]:
        return (
            Parameter(f"c{i}", "real", (-0.5, 3.0), bounds=(-20.0, 100.0)),
            Parameter(f"d{i}", "positive", (0.1, 10.0), unit="x^1"),
            Parameter(f"f{i}", "positive", (0.03, 2.0), bounds=(1e-3, 20.0)),
        )

    return Law(
        name="bnsl",
        formula="a + b/x^c0" + "".join(f" * (1 + (x/d{i})^(1/f{i}))^(-c{i}*f{i})" for i in numbers),
        citation="Caballero, Gupta, Rish and Krueger 2022, arXiv 2210.14891",
        inputs=_data(3 + 3 * breaks),
        target=_LOSS,
        parameters=(
            Parameter("a", "positive", (1e-3, 10.0), linear=True),
            Parameter("b", "positive", (1e-3, 100.0), unit="x^c0", linear=True),
            Parameter("c0", "real", (0.0, 1.0), bounds=(-5.0, 10.0)),
            *(parameter for i in numbers for parameter in of_break(i)),
        ),
        predict=predict,
        notes="The slope of log(y - a) is -(c0 + ... + ck) after break k. A sharp break beyond the fitted range cannot"
        " be foreseen. The paper fits log(y + 1) from a brute-force grid.",
        exchangeable=tuple((f"d{i}", f"c{i}", f"f{i}") for i in numbers) if breaks > 1 else (),
        arguments={"breaks": breaks},
    )


MOST_BREAKS = 100


def bnsl(breaks: int) -> Law:
    """The smoothly broken power law with that many breaks: 3 + 3*breaks parameters.

    y = a + b*x^-c0 * prod_i (1 + (x/d_i)^(1/f_i))^(-c_i*f_i), in logs through softplus, so that a sharp break does not
    overflow. ValueError for a number that is not a whole one from 0 to MOST_BREAKS.
    """
    if not (isinstance(breaks, int) and 0 <= breaks <= MOST_BREAKS):
        raise ValueError(f"breaks: {breaks!r} must be a whole number from 0 to {MOST_BREAKS}, e.g. 1")
    return _bnsl(breaks)


BNSL = Family(
    name="bnsl",
    formula="a + b/x^c0 * prod_i (1 + (x/d_i)^(1/f_i))^(-c_i*f_i)",
    citation="Caballero, Gupta, Rish and Krueger 2022, arXiv 2210.14891",
    target=_LOSS,
    arguments={"breaks": "number of breaks, e.g. 1"},
    make=bnsl,
)

BNSL_ADDITION_PUBLISHED = {
    "a": 0.413885,
    "b": 2.277272,
    "c0": 0.0550774,
    "c1": 5.662909,
    "d1": 612.584,
    "f1": 0.0591931,
}
"""Four-digit addition, one break, as in the authors' example."""


def _accuracy(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["c"] - p["a"] * power(x["x"], -p["b"])


ACCURACY_CURVE = Law(
    name="accuracy-curve",
    formula="c - a/x^b",
    citation="Vilares Ferro, Darriba Bilbao and Ribadas Pena, arXiv 2402.02515",
    inputs=_data(3),
    target="accuracy, as a share or in percent",
    parameters=(
        Parameter("c", "positive", (1e-2, 200.0), linear=True),
        Parameter("a", "positive", (1e-3, 100.0), unit="x^b", linear=True),
        Parameter("b", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
    ),
    predict=_accuracy,
    notes="Rising accuracy of a tagger against training words; c is the accuracy finally achievable. The form is quoted"
    " from memory of the paper (unverified). For the stopping rule see fitting.prefixes.",
    scale="raw",
)

LAWS = (M1, M2, M3, M4, ACCURACY_CURVE)
FAMILIES = (BNSL,)
