"""What repeating data is worth, from a fit of the data-constrained law (Muennighoff et al. 2023, arXiv 2305.16264).

Letters: B draws with the estimate in front, K grid points, P parameters.
"""

import math
from dataclasses import dataclass

import numpy as np

from scaling.fitting.evaluate import at_own
from scaling.fitting.inversions import Decision, decide, extrapolated, lowest, saturated, with_estimate
from scaling.fitting.result import Fit, Refusal, tails
from scaling.laws.repetition import DATA_CONSTRAINED

_FLAT = 10.0  # a 95% interval wider than this factor says that the data do not tell the scale of repetition


@dataclass(frozen=True)
class Allocation:
    """The compute-optimal run under a limit on unique tokens: parameters, tokens (repeats counted), epochs, loss."""

    parameters: Decision
    tokens: Decision
    epochs: Decision
    loss: Decision


def effective_tokens(fit: Fit, tokens: float, unique: float, level: float = 0.95) -> Decision:
    """D' = U + U*Q_D*(1 - exp(-R/Q_D)), R = max(D/U - 1, 0): the fresh tokens that D tokens over U unique are worth.

    Refused as "flat" where D > U and the fit does not tell Q_D. ValueError for a fit of another law.
    """
    unique = min(_positive("unique", unique), _positive("tokens", tokens))
    scale_B = _values(fit, "Q_D")
    worth_B = unique - unique * scale_B * np.expm1(-(tokens / unique - 1) / scale_B)
    return decide(worth_B, _untold(fit, ("Q_D",)) if tokens > unique else None, 0.0, level, warnings=fit.refusals)


def value_of_next_epoch(fit: Fit, epochs: float, level: float = 0.95) -> Decision:
    """What one more epoch adds after `epochs` >= 1 of them, in epochs of fresh tokens: at most 1.

    (D'(e + 1) - D'(e))/U = Q_D*(1 - exp(-1/Q_D))*exp(-(e - 1)/Q_D). Refused as "flat" where the fit does not tell Q_D.
    """
    if not epochs >= 1:
        raise ValueError(f"epochs: {epochs} must be >= 1; before that no token repeats")
    scale_B = _values(fit, "Q_D")
    value_B = -scale_B * np.expm1(-1 / scale_B) * np.exp(-(epochs - 1) / scale_B)
    return decide(value_B, _untold(fit, ("Q_D",)), 0.0, level, warnings=fit.refusals)


def epochs_until(fit: Fit, share: float, level: float = 0.95) -> Decision:
    """The epochs after which a repeated token is worth only `share` of a fresh one: 1 + Q_D*log(1/share).

    The marginal return dD'/dD is exp(-R/Q_D) after R repeats. Refused as "flat" where the fit does not tell Q_D.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share} must lie in (0, 1): what a repeated token is worth against a fresh one")
    epochs_B = 1 - _values(fit, "Q_D") * math.log(share)
    return decide(epochs_B, _untold(fit, ("Q_D",)), 0.0, level, warnings=fit.refusals)


def allocation(fit: Fit, flops: float, unique: float, level: float = 0.95, reach: float = 100.0) -> Allocation:
    """The parameters and tokens that minimise L(N, D, U) at C = 6*N*D, with at most `unique` unique tokens.

    Numeric, for tokens per parameter from 1e-4 to 1e8. Refusals: "flat" (the optimum repeats, or has parameters beyond
    what the unique tokens can feed, and the fit does not tell Q_D or Q_N; or neither counts any more), "extrapolated"
    (the best N or D, or U, more than `reach` times beyond the fitted runs'), "no_interior_minimum", "few_groups".
    """
    half = math.sqrt(_positive("flops", flops) / 6)
    _positive("unique", unique)
    _values(fit, "Q_D")
    parameters_BxP = with_estimate(fit)

    def loss(log_ratio_BxK: np.ndarray) -> np.ndarray:
        root_BxK = np.exp(log_ratio_BxK / 2)
        return at_own(fit.law, parameters_BxP, {"N": half / root_BxK, "D": half * root_BxK, "U": unique})

    grid_K = np.linspace(math.log(1e-4), math.log(1e8), 257)
    log_ratio_B, loss_B, end_B = lowest(loss, grid_K, len(parameters_BxP))
    tokens_B = half * np.exp(log_ratio_B / 2)
    best = {"N": half**2 / tokens_B[0], "D": tokens_B[0], "U": unique}
    refusal = _untold(fit, ("Q_D", "Q_N")) if tokens_B[0] > unique else None
    refusal = refusal or extrapolated(fit, best, reach) or saturated(loss, grid_K, len(parameters_BxP), half)
    if end_B[0]:
        reason = "the predicted loss is least at an end of 1e-4 to 1e8 tokens per parameter"
        refusal = Refusal("no_interior_minimum", f"{reason}; check the fit's exponents")
    inside_B = end_B == 0
    inside_B[0] = True

    def decision(value_B: np.ndarray) -> Decision:
        solved_B = np.where(inside_B, value_B, np.nan)
        return decide(solved_B, refusal, value_B[1:], level, warnings=fit.refusals)

    return Allocation(
        decision(half**2 / tokens_B), decision(tokens_B), decision(np.maximum(tokens_B / unique, 0.0)), decision(loss_B)
    )


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: {value} must be a finite positive number")
    return value


def _values(fit: Fit, name: str) -> np.ndarray:
    """A parameter at the estimate and every draw, or the value at which the law holds it, [B]."""
    record = fit.law.record
    held = record.get("fixed", {})
    if DATA_CONSTRAINED.name not in (fit.law.name, record.get("law", {}).get("name")):
        raise ValueError(f"fit: it is of law {fit.law.name!r}; fit {DATA_CONSTRAINED.name!r}, whose Q_D is needed")
    if name in held:
        return np.full(len(fit.draws_BxP) + 1, held[name])
    return with_estimate(fit)[:, fit.law.parameter_names.index(name)]


def _untold(fit: Fit, names: tuple[str, ...]) -> Refusal | None:
    """Refuses where the fit was refused a scale of repetition, or its 95% interval spans more than a factor of 10."""
    for name in names:
        for refusal in fit.refusals:
            if refusal.kind in ("flat", "bound") and name in refusal.parameters:
                return Refusal("flat", f"{refusal.reason}; add runs that repeat more", (name,))
        draws_B = _values(fit, name)[1:]
        if not draws_B.size:
            continue
        low, high = np.quantile(draws_B, tails(0.95))
        if high > _FLAT * low:
            reason = f"{name} is anywhere in [{low:.3g}, {high:.3g}] (95%), more than a factor of {_FLAT:g}"
            return Refusal("flat", f"{reason}; add runs that repeat more", (name,))
    return None
