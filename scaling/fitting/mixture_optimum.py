"""The best training mixture, and the best size and tokens at a mixture, read off fits.

Letters: B draws with the estimate in front, K domains, S starts, P parameters.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling.fitting import coordinates
from scaling.fitting.inversions import Decision, check_inputs, decide, extrapolated, with_estimate
from scaling.fitting.result import Fit, Refusal
from scaling.laws.law import Law

_STEPS = 3000
_GAP = 1e-9  # of the loss: how far from its least value a mixture may be
_HALVINGS = 100


@dataclass(frozen=True, eq=False)
class BestMixture:
    """The shares that minimise a weighted sum of predicted losses, by domain, and that least sum.

    Shares move together: a draw's best shares sum to 1, an interval's ends do not.
    """

    shares: dict[str, Decision]
    loss: Decision

    def __str__(self) -> str:
        lines = [f"{domain}: {decision}" for domain, decision in self.shares.items()]
        return "\n".join([*lines, f"weighted loss: {self.loss}"])


def best_mixture(
    fits: Mapping[str, Fit],
    weights: Mapping[str, float],
    inputs: Mapping[str, float] | None = None,
    *,
    reach: float = 100.0,
    level: float = 0.95,
) -> BestMixture:
    """argmin over the simplex of sum_i weights[i] * (loss of target i at shares r), for the estimate and every draw.

    `fits`: one a target, all of laws with the same shares as inputs, fitted to the same runs with the same seed so that
    draws pair; a law that labels its rows by domain (capacity-noise) is given once for each label, under that name.
    `inputs` fixes the laws' other inputs (N, D, S). Exponentiated gradient with backtracking from the centre and from
    near each vertex, until the duality gap is below 1e-9 of the loss. The sum is convex for data-mixing laws, and the
    result then the global optimum; for one target it is a vertex, all mass on the smallest t (Ye et al. 2024).

    A share is refused as "extrapolated" where its optimum lies outside the shares that the fitted runs tried, or one of
    `inputs` more than `reach` times beyond those of the fitted runs; as "unstable" where the search did not end for
    more than a tenth of the draws. ValueError for fits and weights that do not match, weights that are negative or all
    0, inputs that are missing, too many or outside their domain, draws that do not pair.
    """
    domains, fixed = _agreed(fits, weights, inputs or {})
    share_BxK, value_B, done_B = _search(
        tuple(fit.law for fit in fits.values()),
        domains,
        tuple(with_estimate(fit) for fit in fits.values()),
        tuple(fixed[target] for target in fits),
        tuple(float(weights[target]) for target in fits),
    )
    warnings = tuple(dict.fromkeys(refusal for fit in fits.values() for refusal in fit.refusals))
    ranges = {
        d: (max(f.ranges[d][0] for f in fits.values()), min(f.ranges[d][1] for f in fits.values())) for d in domains
    }
    far = next((far for target, fit in fits.items() if (far := extrapolated(fit, fixed[target], reach))), None)
    return _best(domains, share_BxK, np.where(done_B, value_B, np.nan), ranges, level, warnings, far)


def best_bimix(
    fits: Mapping[str, Fit],
    weights: Mapping[str, float],
    steps: float,
    *,
    reach: float = 100.0,
    level: float = 0.95,
) -> BestMixture:
    """argmin over the simplex of sum_i weights[i]*(B_i/S^beta_i + C_i)/r_i^alpha_i, for the estimate and every draw.

    `fits`: of the law bimix, one a domain, with as many draws. r_i = (w_i alpha_i K_i/mu)^(1/(1+alpha_i)), K_i =
    B_i/S^beta_i + C_i, mu such that the shares sum to 1: the global optimum, since every term is convex. The closed
    form is ours. Refusals as `best_mixture`. ValueError for other laws, weights not above 0, steps not above 0.
    """
    _check_weights(fits, weights)
    if wrong := [fit.law.name for fit in fits.values() if fit.law.name != "bimix"]:
        raise ValueError(f"fits: of {wrong[0]!r}; expected fits of 'bimix', one a domain")
    if not steps > 0 or min(weights.values()) <= 0:
        raise ValueError(f"steps: {steps}, weights: {dict(weights)} must be > 0; leave out a domain that has no weight")
    _check_draws(fits)
    alpha, b, beta, c = (np.stack([with_estimate(fit)[:, i] for fit in fits.values()], axis=1) for i in range(4))
    level_BxK = b * steps**-beta + c
    log_gain_BxK = np.log(np.array([weights[d] for d in fits]) * alpha * level_BxK)
    share_BxK = _shares_of_powers(log_gain_BxK, alpha)
    value_B = np.sum(np.array([weights[d] for d in fits]) * level_BxK * share_BxK**-alpha, axis=1)
    ranges = {domain: fit.ranges["r"] for domain, fit in fits.items()}
    warnings = tuple(dict.fromkeys(refusal for fit in fits.values() for refusal in fit.refusals))
    far = next((far for fit in fits.values() if (far := extrapolated(fit, {"S": steps}, reach))), None)
    return _best(tuple(fits), share_BxK, value_B, ranges, level, warnings, far)


def _shares_of_powers(log_gain_BxK: np.ndarray, alpha_BxK: np.ndarray) -> np.ndarray:
    """(gain/mu)^(1/(1+alpha)) with the mu, found by bisection, at which each row sums to 1."""
    domains = log_gain_BxK.shape[1]
    low_B = np.max(log_gain_BxK, axis=1)  # the largest share is 1 here, and the sum at least that
    high_B = np.max(log_gain_BxK + (1 + alpha_BxK) * math.log(domains), axis=1)  # every share is at most 1/K here

    def share(log_mu_B: np.ndarray) -> np.ndarray:
        return np.exp((log_gain_BxK - log_mu_B[:, None]) / (1 + alpha_BxK))

    for _ in range(_HALVINGS):
        middle_B = (low_B + high_B) / 2
        above_B = share(middle_B).sum(axis=1) > 1
        low_B, high_B = np.where(above_B, middle_B, low_B), np.where(above_B, high_B, middle_B)
    return share((low_B + high_B) / 2)


def _best(
    domains: tuple[str, ...],
    share_BxK: np.ndarray,
    value_B: np.ndarray,
    ranges: Mapping[str, tuple[float, float]],
    level: float,
    warnings: tuple[Refusal, ...],
    far: Refusal | None,
) -> BestMixture:
    share_BxK = np.where(np.isfinite(value_B)[:, None], share_BxK, np.nan)
    refusals = {d: far or _outside(d, float(share), *ranges[d]) for d, share in zip(domains, share_BxK[0], strict=True)}
    shares = {
        d: decide(share_B, refusals[d], share_B[0], level, warnings=warnings)
        for d, share_B in zip(domains, share_BxK.T, strict=True)
    }
    first = next((refusal for refusal in refusals.values() if refusal), None)
    return BestMixture(shares, decide(value_B, first, value_B[0], level, warnings=warnings))


def _outside(domain: str, share: float, low: float, high: float) -> Refusal | None:
    if low - 1e-4 <= share <= high + 1e-4:
        return None
    reason = (
        f"the best share of {domain}, {share:.4g}, is outside the shares that the runs tried, [{low:.4g}, {high:.4g}]"
    )
    return Refusal("extrapolated", f"{reason}; run mixtures there before you use it")


def _check_weights(fits: Mapping[str, Fit], weights: Mapping[str, float]) -> None:
    if not fits or set(fits) != set(weights):
        raise ValueError(f"weights: of {sorted(weights)}, expected exactly those of the fits, {sorted(fits)}")
    if not all(w >= 0 and math.isfinite(w) for w in weights.values()) or sum(weights.values()) == 0:
        raise ValueError(f"weights: {dict(weights)} must be finite, none negative, and not all 0")


def _check_draws(fits: Mapping[str, Fit]) -> None:
    if len(counts := {len(fit.draws_BxP) for fit in fits.values()}) > 1:
        raise ValueError(
            f"fits: with {sorted(counts)} bootstrap draws; fit every target to the same runs with the same"
            " bootstrap and seed, so that draws pair"
        )


def _agreed(
    fits: Mapping[str, Fit], weights: Mapping[str, float], inputs: Mapping[str, float]
) -> tuple[tuple[str, ...], dict[str, dict[str, float]]]:
    """The domains that the laws share, and the other inputs of each target's law."""
    _check_weights(fits, weights)
    _check_draws(fits)
    simplexes = {fit.law.simplex for fit in fits.values()}
    if len(simplexes) > 1 or not (domains := simplexes.pop()):
        names = ", ".join(sorted({fit.law.name for fit in fits.values()}))
        raise ValueError(
            f"fits: of {names}; expected laws whose inputs are the shares of one mixture, the same in each"
        )
    fixed: dict[str, dict[str, float]] = {}
    for target, fit in fits.items():
        own, needed = dict(inputs), set(fit.law.input_names) - set(domains)
        for i in fit.law.inputs:
            if i.labels and target not in i.labels:
                raise ValueError(f"fits: {target!r} is none of {', '.join(i.labels)}, the labels of {fit.law.name!r}")
            if i.labels:
                own[i.name] = float(i.labels.index(target))
        if set(own) != needed:
            raise ValueError(
                f"inputs: {sorted(inputs)} given, but law {fit.law.name!r} needs exactly"
                f" {sorted(needed - {i.name for i in fit.law.inputs if i.labels})} beside the shares"
            )
        check_inputs(fit.law, own)
        fixed[target] = own
    return domains, fixed


class _State(NamedTuple):
    share_K: jax.Array
    value: jax.Array
    slope_K: jax.Array
    rate: jax.Array
    step: jax.Array


def _search(
    laws: tuple[Law, ...],
    domains: tuple[str, ...],
    parameters: tuple[np.ndarray, ...],
    fixed: tuple[dict[str, float], ...],
    weights: tuple[float, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best shares [B, K], their value and whether the search ended, for each draw: the best of K + 1 starts."""
    count = len(domains)
    start_SxK = np.full((count + 1, count), 1 / count)
    start_SxK[1:] = 0.9 * np.eye(count) + 0.1 / count
    with jax.enable_x64(True):
        ends = _descents(laws, domains, parameters, fixed, np.array(weights), start_SxK)
        share_BxSxK, value_BxS, done_BxS = map(np.asarray, ends)
    best_B = np.argmin(np.where(np.isfinite(value_BxS), value_BxS, np.inf), axis=1)
    at = np.arange(len(best_B)), best_B
    return share_BxSxK[at], value_BxS[at], done_BxS[at]


@partial(jax.jit, static_argnames=("laws", "domains"))
def _descents(
    laws: tuple[Law, ...],
    domains: tuple[str, ...],
    parameters: tuple[jax.Array, ...],
    fixed: tuple[dict[str, jax.Array], ...],
    weights: jax.Array,
    start_SxK: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def total(rows: tuple[jax.Array, ...], share_K: jax.Array) -> jax.Array:
        shares = dict(zip(domains, share_K, strict=True))
        targets = zip(laws, rows, fixed, strict=True)
        terms = [coordinates.predict(law, row_P, {**own, **shares}) for law, row_P, own in targets]
        return jnp.dot(weights, jnp.stack(terms))

    def of_draw(*rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return jax.vmap(partial(_descend, jax.value_and_grad(partial(total, rows))))(start_SxK)

    return jax.vmap(of_draw)(*parameters)


def _descend(
    value_and_slope: Callable[[jax.Array], tuple[jax.Array, Any]], start_K: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Exponentiated gradient: r <- r*exp(-rate*slope), normalised. A step is kept if the value lies below its linear
    model plus the divergence over the rate; the rate then doubles, else it falls to a quarter.
    """

    def gap(s: _State) -> jax.Array:
        return jnp.dot(s.share_K, s.slope_K) - jnp.min(s.slope_K)

    def step(s: _State) -> _State:
        log_share_K = jax.nn.log_softmax(jnp.log(s.share_K) - s.rate * (s.slope_K - jnp.min(s.slope_K)))
        share_K = jnp.maximum(jnp.exp(log_share_K), 1e-30)
        value, slope_K = value_and_slope(share_K)
        divergence = jnp.dot(share_K, jnp.log(share_K) - jnp.log(s.share_K))
        model = s.value + jnp.dot(s.slope_K, share_K - s.share_K) + divergence / s.rate
        kept = jnp.all(jnp.isfinite(slope_K)) & (value <= model + 1e-15 * jnp.abs(s.value))
        return _State(
            jnp.where(kept, share_K, s.share_K),
            jnp.where(kept, value, s.value),
            jnp.where(kept, slope_K, s.slope_K),
            jnp.where(kept, s.rate * 2, s.rate / 4),
            s.step + 1,
        )

    first = _State(start_K, *value_and_slope(start_K), jnp.ones(()), jnp.zeros((), jnp.int32))
    last = jax.lax.while_loop(lambda s: (s.step < _STEPS) & (gap(s) > _GAP * jnp.abs(s.value)), step, first)
    return last.share_K, last.value, gap(last) <= 1e3 * _GAP * jnp.abs(last.value)
