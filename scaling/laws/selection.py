"""Which data to keep: filtering utility under repetition, accuracy from loss, the optimal kept share, and the limits of
size, ensembles and data when compute is free.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.laws.law import Family, Input, Law, Parameter, power

_FILTERING = "Goyal et al. 2024, arXiv 2404.07177"
_BETR = "Mizrahi et al. 2025, arXiv 2507.12466"
_INFINITE = "Kim et al. 2025, arXiv 2509.14786"
_FILTERING_FORMULA = "d + a * n_0^-b_0 * prod_j (n_j/n_(j-1))^-b_j, b_j = mean_i b[i]*(1/2)^(j/(p*tau[i]))"
_SINGLE = 64  # epochs gone through one by one
_NODES, _WEIGHTS = (array / 2 for array in np.polynomial.legendre.leggauss(40))
_NODES = _NODES + 0.5
_SEEN, _UNIQUE = Input("D", "samples seen, repeats counted"), Input("U", "unique samples of all pools together")
_FILTERING_NOTES = (
    "n_j is the number of samples seen by the end of epoch j, so a last epoch may be partial. The paper's b is"
    " negative; here the sign is in the formula. tau is the half-life of b in epochs. The floor d stands outside the"
    " product, as in the paper's equation; the released code multiplies the floor as well, and writes (a*n/1e5)^b with"
    " a inside the power, so its constants do not carry over. The paper holds d = 0.1 (with_fixed) and shares a"
    " between pools."
)


def log_utility(seen: Any, unique: Any, slope: Callable[[Any], Any]) -> jax.Array:
    """log of n_0^-b_0 * prod_{j>=1} (n_j/n_(j-1))^-b_j, n_j = min((j+1)*U, D) samples seen by the end of epoch j.

    `slope(j)` is b_j, smooth in j. The first 64 epochs are gone through one by one, the others summed by the
    Euler-Maclaurin formula (to 1e-9), so that thousands of epochs cost no more.
    """
    epochs = seen / unique
    last = jnp.clip(jnp.ceil(jnp.max(epochs)), 1, _SINGLE).astype(int)

    def epoch(j: Any, total: jax.Array) -> jax.Array:
        j = jnp.asarray(j, dtype=epochs.dtype)
        return total - slope(j) * jnp.log(jnp.clip(epochs, j, j + 1) / j)

    start = -slope(0.0) * jnp.log(jnp.minimum(seen, unique))
    total = jax.lax.fori_loop(1, last, epoch, start)
    many = jnp.max(epochs) > _SINGLE
    return jax.lax.cond(many, lambda: total - _beyond(epochs, slope), lambda: total)


def _beyond(epochs: jax.Array, slope: Callable[[Any], Any]) -> jax.Array:
    """sum_j b_j*log(n_j/n_(j-1)) over the epochs from j = 64 on.

    Whole ones: the integral of f(t) = b_t*log(1 + 1/t), by Gauss-Legendre in log t, and the end terms -f/2 + f'/12.
    """
    whole = jnp.maximum(jnp.floor(epochs), _SINGLE)
    first = jnp.full_like(whole, _SINGLE)

    def term(t: jax.Array) -> jax.Array:
        return slope(t) * jnp.log1p(1 / t)

    def end(t: jax.Array) -> jax.Array:
        value, derivative = jax.jvp(term, (t,), (jnp.ones_like(t),))
        return derivative / 12 - value / 2

    def at_node(node: jax.Array) -> jax.Array:
        t = first * (whole / first) ** node
        return term(t) * t

    integral = jnp.tensordot(_WEIGHTS, jax.vmap(at_node)(jnp.asarray(_NODES)), axes=1) * jnp.log(whole / first)
    partial = slope(whole) * jnp.log(jnp.maximum(epochs, _SINGLE) / whole)
    return integral + end(whole) - end(first) + partial


def _utility_parameters(pools: tuple[str, ...]) -> tuple[Parameter, ...]:
    return (
        Parameter("a", "positive", (1e-3, 100.0), linear=True, unit=None if len(pools) > 1 else "D^b"),
        *(Parameter(f"b{pool}", "positive", (5e-3, 1.0), bounds=(1e-4, 10.0)) for pool in pools),
        *(Parameter(f"tau{pool}", "positive", (0.3, 30.0), bounds=(1e-2, 1e4)) for pool in pools),
        Parameter("d", "positive", (1e-3, 10.0), linear=True),
    )


def _single(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    worth = log_utility(x["D"], x["U"], lambda j: p["b"] * jnp.exp2(-j / p["tau"]))
    return p["d"] + p["a"] * jnp.exp(worth)


DATA_FILTERING = Law(
    name="data-filtering",
    formula="d + a * n_0^-b_0 * prod_j (n_j/n_(j-1))^-b_j, b_j = b*(1/2)^(j/tau)",
    citation=_FILTERING,
    inputs=(_SEEN, _UNIQUE),
    target="error, a share",
    parameters=_utility_parameters(("",)),
    predict=_single,
    notes=f"One pool of data. {_FILTERING_NOTES}",
)


@cache
def _pools(names: tuple[str, ...]) -> Law:
    def predict(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
        count = sum(x[name] for name in names)

        def slope(j: Any) -> jax.Array:
            terms = (x[name] * p[f"b[{name}]"] * jnp.exp2(-j / (count * p[f"tau[{name}]"])) for name in names)
            return sum(terms, jnp.zeros_like(count)) / count

        return p["d"] + p["a"] * jnp.exp(log_utility(x["D"], x["U"], slope))

    members = tuple(
        Input(name, "1 where the pool is part of the data, else 0", 0.0, 1.0, low_included=True, distinct=2)
        for name in names
    )
    return Law(
        name="data-filtering-pools",
        formula=f"{_FILTERING_FORMULA}, i over the p pools in use",
        citation=_FILTERING,
        inputs=(_SEEN, _UNIQUE, *members),
        target="error, a share",
        parameters=_utility_parameters(tuple(f"[{name}]" for name in names)),
        predict=predict,
        notes=f"Pools of equal size, alone or together. {_FILTERING_NOTES}",
        arguments={"pools": list(names)},
    )


def filtering_pools(pools: Any) -> Law:
    """The utility law of several pools of equal size, alone and in unions: a and d are shared, b and tau a pool's own.

    Inputs D, U and one column a pool, 1 where it is in use. In a union of p pools half-lives are p*tau, and the
    exponent of epoch j is the mean over pools of b_i*(1/2)^(j/(p*tau_i)). ValueError for fewer than two pools, a
    repeated one, or one named D or U.
    """
    names = tuple(map(str, pools))
    if len(names) < 2 or len(set(names)) < len(names) or {"D", "U"} & set(names):
        raise ValueError(f"pools: {names} must be at least two different names, none of them D or U")
    return _pools(names)


FILTERING_POOLS = Family(
    name="data-filtering-pools",
    formula=f"{_FILTERING_FORMULA}, i over the p pools in use",
    citation=_FILTERING,
    target="error, a share",
    arguments={"pools": "names of the pools"},
    make=filtering_pools,
)


def _accuracy(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["c2"] + p["c1"] * jax.nn.sigmoid(-p["k"] * (x["L"] - p["L0"]))


BETR_ACCURACY = Law(
    name="betr-accuracy",
    formula="c1/(1 + exp(k*(L - L0))) + c2",
    citation=f"{_BETR}, second stage",
    inputs=(Input("L", "loss on the benchmark, bits/byte", low_included=True, distinct=4),),
    target="accuracy, a share",
    scale="raw",
    parameters=(
        Parameter("c1", "positive", (0.05, 2.0), linear=True),
        Parameter("k", "positive", (0.5, 50.0), bounds=(1e-2, 1e3)),
        Parameter("L0", "positive", (0.1, 5.0), bounds=(1e-3, 100.0)),
        Parameter("c2", "real", (0.0, 0.5), bounds=(-1.0, 1.0), linear=True),
    ),
    predict=_accuracy,
    notes="The paper writes k < 0; here the sign is in the formula. It adds the point L = 0, accuracy 1; the first"
    " stage is the law chinchilla for the same loss. fitting.two_stage does both.",
)


def _kept(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["a"] * power(x["C"], p["b"])


KEPT_SHARE = Law(
    name="kept-share",
    formula="a * C^b",
    citation=f"{_BETR}, optimal kept share of a ranked pool",
    inputs=(Input("C", "training FLOPs", distinct=2),),
    target="kept share, percent",
    parameters=(
        Parameter("a", "positive", (1e-2, 100.0), unit="C^-b", linear=True),
        Parameter("b", "real", (-1.0, 1.0), bounds=(-5.0, 5.0)),
    ),
    predict=_kept,
    notes="b > 0: strict filtering is better at small compute, loose at large. The share at fixed size against tokens"
    " has the same form: map C to the column of tokens. Nothing keeps the law below 100 percent.",
)

KEPT_SHARE_PUBLISHED = {
    "Nemotron": {"a": 4e-5, "b": 0.25},
    "RefinedWeb": {"a": 6e-3, "b": 0.14},
    "6.6B parameters, against tokens": {"a": 0.26, "b": 0.13},
}
"""Constants of `KEPT_SHARE`, printed to one or two digits."""


def _limit(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["E"] + p["A"] * power(x["x"], -p["alpha"])


INFINITE_COMPUTE = Law(
    name="infinite-compute",
    formula="E + A/x^alpha",
    citation=f"{_INFINITE} (number from memory)",
    inputs=(Input("x", "members of an ensemble K, parameters N, or unique tokens U: one of them, the others held"),),
    target="nats/token, the best that any number of epochs gives",
    scale="raw",
    parameters=(
        Parameter("E", "positive", (0.05, 10.0), linear=True),
        Parameter("A", "positive", (1e-4, 10.0), unit="x^alpha", linear=True),
        Parameter("alpha", "positive", (0.05, 3.0), bounds=(1e-2, 10.0)),
    ),
    predict=_limit,
    notes="N in billions in the paper. Each loss is regularised as much as is best. The paper fits three parameters to"
    " four points by least squares, so there is one degree of freedom; seeds move a limit E by up to 0.02. For the"
    " chain of limits in K, N and U with its uncertainty see fitting.cascade.",
)

INFINITE_COMPUTE_PUBLISHED = {
    "N, one regularised model": {"E": 3.43, "A": 0.05, "alpha": 1.02},
    "K, members of 300M": {"E": 3.34, "A": 0.25, "alpha": 1.02},
}
"""Constants at 200M unique tokens, printed to two digits; the limit of both is 3.17."""

LAWS = (DATA_FILTERING, BETR_ACCURACY, KEPT_SHARE, INFINITE_COMPUTE)
FAMILIES = (FILTERING_POOLS,)
