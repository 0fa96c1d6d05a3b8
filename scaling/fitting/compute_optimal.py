"""The model size and tokens that a compute budget is best spent on, from a fit of a law in both.

Letters: B draws with the estimate in front, K grid points, P parameters.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling.fitting.evaluate import at_own
from scaling.fitting.inversions import Decision, check_inputs, decide, extrapolated, lowest, saturated, with_estimate
from scaling.fitting.result import Fit, Refusal, tails
from scaling.laws.kaplan import KAPLAN_SIZE_DATA
from scaling.laws.mixture import D_CPT
from scaling.laws.repetition import CHINCHILLA_TIED
from scaling.laws.size import CHINCHILLA, CHINCHILLA_GAMMA, OVER_TRAINING

_LOW, _HIGH = math.log(1e-4), math.log(1e8)  # log tokens per parameter between which an optimum is looked for
_GRID = np.linspace(_LOW, _HIGH, 257)
_STEP = 0.1  # of log C, for the local exponent
_FLAT = 10.0  # a 95% interval of the size wider than this factor says that the data do not tell it

Columns = Mapping[str, np.ndarray]
Terms = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ComputeOptimal:
    """The best run of a budget: parameters, tokens, their ratio, the loss, and the exponent a of N* ~ C^a there."""

    compute: float
    parameters: Decision
    tokens: Decision
    tokens_per_parameter: Decision
    loss: Decision
    exponent: Decision

    def __str__(self) -> str:
        rows = {
            "parameters": self.parameters,
            "tokens": self.tokens,
            "tokens per parameter": self.tokens_per_parameter,
            "loss": self.loss,
            "exponent of parameters": self.exponent,
        }
        return "\n".join([f"best use of {self.compute:.4g} FLOPs", *(f"  {name}: {d}" for name, d in rows.items())])


def compute_optimal(
    fit: Fit,
    compute: float,
    *,
    inputs: Mapping[str, float] | None = None,
    flops: float = 6.0,
    reach: float = 100.0,
    level: float = 0.95,
) -> ComputeOptimal:
    """N*, D* that minimise the law at compute = flops*N*D, with L*, and a = d log N*/d log C.

    `fit` is of a law in N and D, or in C and M = D/N, in plain numbers (not in billions); `inputs` gives what else it
    needs. Where the law is E + f(A/N^alpha + B/D^beta), in closed form: G = (alpha*A/(beta*B))^(1/(alpha+beta)),
    N* = G*(C/6)^(beta/(alpha+beta)), D* = (C/6)/N*, a = beta/(alpha+beta); else by golden section on log D/N between
    1e-4 and 1e8 tokens per parameter.

    Refusals: "no_interior_minimum" (the optimum is at an end of that span), "collinear" and "few_distinct" (as the fit
    was), "extrapolated" (compute, or one of `inputs`, more than `reach` times beyond the fitted runs'), "flat" (the 95%
    interval of N* spans more than a factor of 10, or sizes more than 1.5 times apart end at the same loss), "unstable"
    (a tenth of the draws have no interior minimum), "few_groups" (no draws). ValueError for a law of other inputs, an
    input, budget, flops or reach out of range.
    """
    given = _check(fit, compute, inputs or {}, flops, reach)
    parameters_BxP = with_estimate(fit)
    log_ratio_B, exponent_B = _optimum(fit, parameters_BxP, compute, given, flops)
    inside_B = (log_ratio_B > _LOW) & (log_ratio_B < _HIGH)
    log_ratio_B = np.clip(log_ratio_B, _LOW, _HIGH)
    loss_B = _loss(fit, parameters_BxP, compute, given, flops)(log_ratio_B[:, None])[:, 0]
    size_B = np.sqrt(compute / flops) * np.exp(-log_ratio_B / 2)
    refusal = _refusal(fit, compute, given, flops, reach, bool(inside_B[0]), size_B)
    if fit.law.name not in _CLOSED:
        loss = _loss(fit, parameters_BxP, compute, given, flops)
        refusal = refusal or saturated(loss, _GRID, len(parameters_BxP), math.sqrt(compute / flops))

    def decision(value_B: np.ndarray) -> Decision:
        solved_B = np.where(inside_B | (np.arange(len(value_B)) == 0), value_B, np.nan)
        return decide(solved_B, refusal, value_B[1:], level, warnings=fit.refusals)

    return ComputeOptimal(
        compute,
        decision(size_B),
        decision(compute / flops / size_B),
        decision(np.exp(log_ratio_B)),
        decision(loss_B),
        decision(exponent_B),
    )


_CLOSED: dict[str, Callable[[Columns, float, Mapping[str, float]], Terms]] = {
    CHINCHILLA.name: lambda p, *_: (p["A"], p["alpha"], p["B"], p["beta"]),
    CHINCHILLA_GAMMA.name: lambda p, *_: (p["A"], p["alpha"], p["B"], p["beta"]),
    CHINCHILLA_TIED.name: lambda p, *_: (p["A"], p["alpha"], p["B"], p["alpha"]),
    D_CPT.name: lambda p, _, given: (p["A"], p["alpha"], p["B"] * given["r"] ** p["eta"], p["beta"]),
    OVER_TRAINING.name: lambda p, k, _: (p["a"] * k ** -p["eta"], 2 * p["eta"], p["b"] * k ** -p["eta"], 2 * p["eta"]),
    KAPLAN_SIZE_DATA.name: lambda p, *_: (
        p["Nc"] ** (p["aN"] / p["aD"]),
        p["aN"] / p["aD"],
        p["Dc"],
        np.ones_like(p["Dc"]),
    ),
}
"""By law: A, alpha, B, beta of A/N^alpha + B/D^beta, in which the law rises, from its parameters, FLOPs/(N*D), and the
other inputs. For d-cpt that is Que et al.'s resource allocation."""


def _optimum(
    fit: Fit, parameters_BxP: np.ndarray, compute: float, given: Mapping[str, float], flops: float
) -> tuple[np.ndarray, np.ndarray]:
    """Log of D*/N*, and the exponent of N*."""
    if closed := _CLOSED.get(fit.law.name):
        a, alpha, b, beta = closed(dict(zip(fit.law.parameter_names, parameters_BxP.T, strict=True)), flops, given)
        with np.errstate(divide="ignore"):  # B = 0, at r = 0: no token counts, and the optimum lies at the edge
            log_g = (np.log(alpha * a) - np.log(beta * b)) / (alpha + beta)
        log_c = math.log(compute / flops)
        return (alpha - beta) / (alpha + beta) * log_c - 2 * log_g, beta / (alpha + beta)
    def at(budget: float) -> np.ndarray:
        return lowest(_loss(fit, parameters_BxP, budget, given, flops), _GRID, len(parameters_BxP))[0]

    less_B, more_B = at(compute * math.exp(-_STEP)), at(compute * math.exp(_STEP))
    return at(compute), 0.5 - (more_B - less_B) / (4 * _STEP)


def _loss(
    fit: Fit, parameters_BxP: np.ndarray, compute: float, given: Mapping[str, float], flops: float
) -> Callable[[np.ndarray], np.ndarray]:
    """The law at logs of tokens per parameter, [B, K] to [B, K]."""
    half = math.sqrt(compute / flops)

    def loss(log_ratio_BxK: np.ndarray) -> np.ndarray:
        if "M" in fit.law.input_names:
            return at_own(fit.law, parameters_BxP, {**given, "C": compute, "M": np.exp(log_ratio_BxK)})
        root_BxK = np.exp(log_ratio_BxK / 2)
        return at_own(fit.law, parameters_BxP, {**given, "N": half / root_BxK, "D": half * root_BxK})

    return loss


def _check(fit: Fit, compute: float, inputs: Mapping[str, float], flops: float, reach: float) -> dict[str, float]:
    left = set(fit.law.input_names) - set(inputs)
    if left not in ({"N", "D"}, {"C", "M"}) or set(inputs) - set(fit.law.input_names):
        raise ValueError(
            f"fit: law {fit.law.name!r} has inputs {', '.join(fit.law.input_names)}; beside inputs= {sorted(inputs)}"
            " these must leave exactly N and D, or C and M"
        )
    check_inputs(fit.law, inputs)
    for name, value, least in (("compute", compute, 0.0), ("flops", flops, 0.0), ("reach", reach, 1.0)):
        if not (value >= least and value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: {value} must be finite and {'>= 1' if least else '> 0'}")
    return dict(inputs)


def _refusal(
    fit: Fit, compute: float, given: Mapping[str, float], flops: float, reach: float, inside: bool, size_B: np.ndarray
) -> Refusal | None:
    if not inside:
        return Refusal(
            "no_interior_minimum",
            "the predicted loss is least at an end of 1e-4 to 1e8 tokens per parameter; N and D in plain numbers?"
            " Check the fit's exponents",
        )
    for refusal in fit.refusals:
        if refusal.kind in ("collinear", "few_distinct"):
            return refusal
    seen = fit.points.fitted.inputs
    compute_M = seen["C"] if "C" in seen else flops * seen["N"] * seen["D"]
    low, high = float(compute_M.min()), float(compute_M.max())
    if not low / reach <= compute <= high * reach:
        beyond = f"more than {reach:g} times beyond the fitted {low:.4g} to {high:.4g}"
        return Refusal(
            "extrapolated",
            f"{compute:.4g} FLOPs is {beyond}; add runs there, or say how far you trust the law with reach=",
        )
    if far := extrapolated(fit, given, reach):
        return far
    if len(size_B) > 1:
        few, many = np.quantile(size_B[1:], tails(0.95))
        if many > _FLAT * few:
            reason = f"the best size is anywhere in [{few:.3g}, {many:.3g}] (95%), more than a factor of {_FLAT:g}"
            return Refusal("flat", f"{reason}; add runs that vary N at equal compute")
    return None
