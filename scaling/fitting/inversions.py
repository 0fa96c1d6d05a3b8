"""Decisions read off a fit: the share, or the tokens, at which a law meets a condition, with its uncertainty.

Letters: B draws with the estimate in front, K grid points, P parameters.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from scaling.fitting.evaluate import at_own
from scaling.fitting.result import Fit, Refusal, tails
from scaling.laws.law import Input, Law

_GRID = 513
_HALVINGS = 50
_GOLDEN = (math.sqrt(5) - 1) / 2
_REACH = 1e3  # how far beyond the fitted tokens a turning point is looked for


@dataclass(frozen=True, eq=False)
class Decision:
    """A value to act on, its bootstrap percentile interval (nan without draws), and why not to act on it.

    `value` is nan where there is none, and the end of the range where the answer lies beyond it. `draws_B` holds the
    answer of each draw, `unsolved` the share of draws that have none. `warnings`: what the fit behind it was refused;
    the decision may still hold, since a prediction can be known where a parameter is not.
    """

    value: float
    low: float
    high: float
    level: float
    refusal: Refusal | None = None
    unsolved: float = 0.0
    draws_B: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    warnings: tuple[Refusal, ...] = ()

    def __str__(self) -> str:
        text = f"{self.value:.4g}, {self.level:.0%} interval [{self.low:.4g}, {self.high:.4g}]"
        if self.refusal:
            text += f"; refused, {self.refusal}"
        return "; ".join([text, *(f"the fit was refused, {warning}" for warning in self.warnings)])


def critical_ratio(
    fit: Fit,
    limit: float,
    inputs: Mapping[str, float] | None = None,
    *,
    limit_draws: np.ndarray | None = None,
    reach: float = 10.0,
    level: float = 0.95,
    tolerated: float = 0.1,
) -> Decision:
    """The largest domain share r in [0, 1] at which the general loss of `fit` stays <= `limit`.

    `fit` is of the *general* loss. Its law says whose share its ratio is: D-CPT's is that of the measured corpus, so
    the law is read at 1 - r; the CMR ratio law's is that of the domain, read at r. `inputs` fixes the law's other
    inputs (N, D). `limit_draws`: one limit a bootstrap draw, where the limit is itself uncertain.

    Draws without a solution count as 0 in the interval, draws that stay within the limit as 1. Refusals: "infeasible"
    (no share satisfies the limit, not even 0), "unbounded" (r = 1 satisfies it: the answer is 1 or more),
    "non_monotone" (the satisfying shares are not an interval from 0), "extrapolated" (the share lies outside those
    fitted, or another input beyond `reach` times the fitted range), "unstable" (more than `tolerated` of the draws have
    no solution), "few_groups" (no draws). ValueError for a law without a ratio, missing or extra inputs, a limit
    that is not finite, limits that do not match the draws.
    """
    ratio = read_ratio(fit, inputs or {})
    limit_B = _limits(fit, limit, limit_draws)
    parameters_BxP = with_estimate(fit)

    def within(share_BxK: np.ndarray) -> np.ndarray:
        at_BxK = 1 - share_BxK if ratio.share_of == "measured" else share_BxK
        return at_own(fit.law, parameters_BxP, {**(inputs or {}), ratio.name: at_BxK}) <= limit_B[:, None]

    grid_K = np.linspace(0.0, 1.0, _GRID)
    within_BxK = within(np.tile(grid_K, (len(limit_B), 1)))
    share_B = _last(within, within_BxK, grid_K)
    share_B[within_BxK[:, -1]] = 1.0
    refusal = _ratio_refusal(within_BxK[0], float(share_B[0]), limit)
    if refusal is None:
        at = 1 - share_B[0] if ratio.share_of == "measured" else share_B[0]
        refusal = extrapolated(fit, {**(inputs or {}), ratio.name: float(at)}, reach)
    return decide(share_B, refusal, 0.0, level, tolerated, fit.refusals)


def turning_point(
    general: Fit,
    domain: Fit | None = None,
    multiplier: float = math.inf,
    *,
    level: float = 0.95,
    tolerated: float = 0.1,
) -> Decision:
    """The tokens T0 after which F = L_domain + multiplier * L_general falls for good (Gu et al. 2024).

    `general` is a fit of the law alpha2*T^s2 + alpha3*T^s3 + beta2; `domain`, needed where the multiplier is finite, of
    alpha1*T^s1 + beta1 to the same runs with the same seed, so that draws pair. T0 is the last zero of
    alpha1*s1*T^s1/multiplier + alpha2*s2*T^s2 + alpha3*s3*T^s3; for an infinite multiplier
    (-(alpha2*s2)/(alpha3*s3))^(1/(s3-s2)). It is looked for within a factor of 1000 of the fitted tokens.

    Draws that fall throughout count as 0, draws that still rise as inf. Refusals: "no_turning_point" (value 0 where F
    falls throughout, nan where it still rises), "unstable" (more than `tolerated` of the draws still rise),
    "few_groups" (no draws).
    """
    terms_BxKx2 = _growth_terms(general, domain, multiplier)
    low, high = general.ranges["T"]
    grid_K = np.linspace(math.log(low / _REACH), math.log(high * _REACH), _GRID)

    def rises(log_tokens_BxK: np.ndarray) -> np.ndarray:
        power_BxKxJ = np.exp(terms_BxKx2[:, None, :, 1] * log_tokens_BxK[:, :, None])
        return np.sum(terms_BxKx2[:, None, :, 0] * power_BxKxJ, axis=2) > 0

    rises_BxK = rises(np.tile(grid_K, (len(terms_BxKx2), 1)))
    tokens_B = np.exp(_last(rises, rises_BxK, grid_K))
    tokens_B[~rises_BxK.any(axis=1)] = 0.0
    refusal = None
    if not rises_BxK[0].any() or rises_BxK[0, -1]:
        how = "still rises at the end of" if rises_BxK[0, -1] else "falls throughout"
        reason = f"the fitted loss {how} {low / _REACH:.3g} to {high * _REACH:.3g} tokens, so it never turns"
        refusal = Refusal("no_turning_point", reason)
    warnings = general.refusals + (domain.refusals if domain and math.isfinite(multiplier) else ())
    return decide(tokens_B, refusal, math.inf, level, tolerated, warnings)


def read_ratio(fit: Fit, inputs: Mapping[str, float]) -> Input:
    """The one mixture ratio among a law's inputs; `inputs` must be exactly the others. ValueError otherwise."""
    ratios = [i for i in fit.law.inputs if i.share_of]
    if len(ratios) != 1:
        raise ValueError(
            f"fit: law {fit.law.name!r} has {len(ratios)} mixture ratios among {fit.law.input_names}, one is needed;"
            " use d-cpt or cmr-ratio"
        )
    others = set(fit.law.input_names) - {ratios[0].name}
    if set(inputs) != others:
        raise ValueError(
            f"inputs: {sorted(inputs)} must be exactly {sorted(others)}, the inputs of law {fit.law.name!r} less"
            f" {ratios[0].name!r}, the one solved for"
        )
    check_inputs(fit.law, inputs)
    return ratios[0]


def _limits(fit: Fit, limit: float, limit_draws: np.ndarray | None) -> np.ndarray:
    draws_B = np.full(len(fit.draws_BxP), limit) if limit_draws is None else np.asarray(limit_draws, dtype=np.float64)
    if draws_B.shape != (len(fit.draws_BxP),):
        raise ValueError(
            f"limit_draws: shape {draws_B.shape} must be one limit a bootstrap draw, ({len(fit.draws_BxP)},)"
        )
    limit_B = np.concatenate([[limit], draws_B])
    if not np.isfinite(limit_B).all():
        raise ValueError(
            f"limit: {limit_B[~np.isfinite(limit_B)][0]} must be finite; give the highest general loss you accept"
        )
    return limit_B


def with_estimate(fit: Fit) -> np.ndarray:
    """Parameters of the estimate, then of every draw, [B, P]."""
    return np.concatenate([[list(fit.parameters.values())], fit.draws_BxP])


def _growth_terms(general: Fit, domain: Fit | None, multiplier: float) -> np.ndarray:
    """Coefficient and exponent of each power of T in T * d(F/multiplier)/dT, [B, terms, 2]."""
    if not multiplier > 0:
        raise ValueError(
            f"multiplier: {multiplier} must be > 0 (the paper's experiments give 100 to 7000; inf for the limit)"
        )
    wanted: list[tuple[Fit, str, tuple[tuple[str, str], ...], float]] = [
        (general, "cmr-general-change", (("alpha2", "s2"), ("alpha3", "s3")), 1.0)
    ]
    if math.isfinite(multiplier):
        if domain is None:
            raise ValueError(f"domain: a fit of cmr-domain-change is needed for the finite multiplier {multiplier:g}")
        wanted.append((domain, "cmr-domain-change", (("alpha1", "s1"),), 1 / multiplier))
    terms = []
    for fit, law, pairs, weight in wanted:
        if fit.law.name != law or len(fit.draws_BxP) != len(general.draws_BxP):
            raise ValueError(
                f"fit of {fit.law.name!r} with {len(fit.draws_BxP)} draws: expected one of {law!r} with"
                f" {len(general.draws_BxP)}"
            )
        column = dict(zip(fit.law.parameter_names, with_estimate(fit).T, strict=True))
        terms += [np.stack([weight * column[a] * column[s], column[s]], axis=-1) for a, s in pairs]
    return np.stack(terms, axis=1)


def _last(holds: Callable[[np.ndarray], np.ndarray], holds_BxK: np.ndarray, grid_K: np.ndarray) -> np.ndarray:
    """Where a condition last holds, refined by bisection; nan where it never holds, or still does at the end."""
    last_B = len(grid_K) - 1 - np.argmax(holds_BxK[:, ::-1], axis=1)
    crossing_B = holds_BxK.any(axis=1) & ~holds_BxK[:, -1]
    low_B, high_B = grid_K[last_B], grid_K[np.minimum(last_B + 1, len(grid_K) - 1)]
    for _ in range(_HALVINGS):
        middle_B = (low_B + high_B) / 2
        holds_B = holds(middle_B[:, None])[:, 0]
        low_B, high_B = np.where(holds_B, middle_B, low_B), np.where(holds_B, high_B, middle_B)
    return np.where(crossing_B, (low_B + high_B) / 2, np.nan)


def _ratio_refusal(within_K: np.ndarray, share: float, limit: float) -> Refusal | None:
    if not within_K.any():
        return Refusal(
            "infeasible", f"the predicted general loss exceeds the limit {limit:.6g} at every domain share, 0 included"
        )
    if not within_K[: int(np.flatnonzero(within_K)[-1]) + 1].all():
        below = np.flatnonzero(~within_K)[0] / (len(within_K) - 1)
        return Refusal(
            "non_monotone",
            f"shares up to {share:.4g} satisfy the limit, but not all: {below:.4g} does not; plot the fitted curve",
        )
    if within_K[-1]:
        return Refusal(
            "unbounded",
            f"a domain share of 1 still satisfies the limit {limit:.6g}; the critical ratio is 1 or more (one-sided)",
        )
    return None


def lowest(
    value: Callable[[np.ndarray], np.ndarray], grid_K: np.ndarray, lanes: int, narrowings: int = 44
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each lane's function is least on a grid's span: place, value, and the end it lies at (-1, 1; 0 inside).

    `value` takes places [B, K] to values [B, K]. The best grid point, then golden section between its neighbours; a
    narrowing keeps 0.618 of the bracket, so 44 leave 1e-9 of it.
    """
    best_B = np.argmin(value(np.tile(grid_K, (lanes, 1))), axis=1)
    low_B, high_B = grid_K[np.maximum(best_B - 1, 0)], grid_K[np.minimum(best_B + 1, len(grid_K) - 1)]
    for _ in range(narrowings):
        width_B = _GOLDEN * (high_B - low_B)
        value_Bx2 = value(np.stack([high_B - width_B, low_B + width_B], axis=1))
        left_B = value_Bx2[:, 0] < value_Bx2[:, 1]
        low_B, high_B = np.where(left_B, low_B, high_B - width_B), np.where(left_B, low_B + width_B, high_B)
    end_B = (best_B == len(grid_K) - 1).astype(int) - (best_B == 0)
    place_B = np.where(end_B == 0, (low_B + high_B) / 2, grid_K[best_B])
    return place_B, value(place_B[:, None])[:, 0], end_B


def saturated(
    loss: Callable[[np.ndarray], np.ndarray], log_ratio_K: np.ndarray, lanes: int, half: float
) -> Refusal | None:
    """Refuses a best size as "flat" where the estimate's loss is as low, to 1e-9, at sizes more than 1.5 times apart.

    `loss` as `lowest` takes it, at logs of tokens per parameter; parameters are half*exp(-log ratio/2). Repeated tokens
    and parameters that unique tokens cannot feed come to count nothing (Muennighoff et al. 2023).
    """
    loss_K = loss(np.tile(log_ratio_K, (lanes, 1)))[0]
    if not np.isfinite(loss_K).any():
        return None
    least = float(loss_K[np.isfinite(loss_K)].min())
    least_K = log_ratio_K[loss_K <= least + 1e-9 * abs(least)]
    small, large = half * math.exp(-least_K[-1] / 2), half * math.exp(-least_K[0] / 2)
    if large <= 1.5 * small:
        return None
    reason = f"{small:.3g} to {large:.3g} parameters end at the same loss: more of them, or of tokens, count nothing"
    return Refusal("flat", f"{reason}; take the fewest, or give the run more unique tokens")


def check_inputs(law: Law, inputs: Mapping[str, float]) -> None:
    """ValueError for an input outside its domain in the law, such as a share in percent, or not finite."""
    for i in law.inputs:
        value = np.array([inputs.get(i.name, math.nan)])
        if i.name in inputs and not i.labels and not (np.isfinite(value) & ~i.outside(value)).all():
            raise ValueError(
                f"inputs: {i.name} = {inputs[i.name]:g} is outside {i.domain}, its domain ({i.unit}) in law"
                f" {law.name!r}"
            )


def extrapolated(fit: Fit, inputs: Mapping[str, float], reach: float) -> Refusal | None:
    """Refuses one of `inputs` beyond `reach` times the fitted range; a share, or another bounded one, beyond the range.
    """
    if not reach >= 1:
        raise ValueError(f"reach: {reach} must be >= 1: how many times beyond the fitted range to trust the law")
    for i in fit.law.inputs:
        if i.labels or i.name not in inputs:
            continue
        low, high = fit.ranges[i.name]
        factor = reach if math.isinf(i.high) else 1.0
        if not low / factor * (1 - 1e-9) <= inputs[i.name] <= high * factor * (1 + 1e-9):
            beyond = f"more than {factor:g} times beyond" if factor > 1 else "outside"
            reason = f"{i.name} = {inputs[i.name]:.4g} is {beyond} the fitted range [{low:.4g}, {high:.4g}]"
            return Refusal("extrapolated", f"{reason}; add runs there, or say how far you trust the law with reach=")
    return None


def decide(
    solved_B: np.ndarray,
    refusal: Refusal | None,
    unsolved_as: float | np.ndarray,
    level: float,
    tolerated: float = 0.1,
    warnings: tuple[Refusal, ...] = (),
) -> Decision:
    """The decision of the answers of an estimate and its draws; a draw without one (nan) counts as `unsolved_as`.

    Refused as "few_groups" without draws, as "unstable" where more than `tolerated` of them have no answer.
    """
    value, draws_B = float(solved_B[0]), solved_B[1:]
    tail = tails(level)
    if not len(draws_B):
        missing = Refusal(
            "few_groups", "the fit has no bootstrap draws, so the value has no interval; fit with at least two groups"
        )
        return Decision(value, math.nan, math.nan, level, refusal or missing, warnings=warnings)
    unsolved = float(np.isnan(draws_B).mean())
    filled_B = np.where(np.isnan(draws_B), unsolved_as, draws_B)
    low = float(np.quantile(filled_B, tail[0], method="lower"))
    high = float(np.quantile(filled_B, tail[1], method="higher"))
    if refusal is None and unsolved > tolerated:
        refusal = Refusal(
            "unstable",
            f"{unsolved:.0%} of the bootstrap draws have no solution (at most {tolerated:.0%} tolerated); add runs",
        )
    return Decision(value, low, high, level, refusal, unsolved, filled_B, warnings)
