"""How many times more compute one method needs than another for the same loss.

A law in C is read at C; a law in N and D along its own compute-optimal path, min over N at C = 6*N*D.

Letters: L lanes (a draw, or a draw at a level of loss), B draws with the estimate in front, K levels, P parameters.
"""

import math
from collections.abc import Mapping

import numpy as np

from scaling.fitting.evaluate import at_own
from scaling.fitting.inversions import Decision, check_inputs, decide, lowest, with_estimate
from scaling.fitting.result import Fit, Refusal

_FAR = 1e6  # how far beyond the fitted compute an equal loss is looked for
_LEVELS = 5
_HALVINGS = 32


def compute_multiplier(
    baseline: Fit,
    method: Fit,
    flops: float,
    *,
    inputs: Mapping[str, float] | None = None,
    paired: bool = False,
    level: float = 0.95,
) -> Decision:
    """How many times `flops` the baseline needs for the loss that the method reaches with `flops` (2: twice as much).

    C_b/C with L_b(C_b) = L_m(C). `inputs` fixes what the laws need beside C, or N and D. `paired`: draw b of both fits
    resampled the same runs; otherwise draws are combined at random. Refusals: "extrapolated" (the loss is not one that
    both reach within their fitted compute), "unbounded" (the baseline does not reach it within a million times that;
    the value is inf), "unstable" (so it is in more than a tenth of the draws; they count as inf), "few_groups" (no
    draws). ValueError for laws without C or N and D, inputs that are missing or outside their domain, flops <= 0,
    paired fits of unequal draws.
    """
    if not flops > 0:
        raise ValueError(f"flops: {flops} must be > 0: the compute of the method")
    given = _given(baseline, method, inputs)
    baseline_BxP, method_BxP = _pair(baseline, method, paired)
    loss_B = path_loss(method, method_BxP, np.full(len(method_BxP), flops), given)
    ratio_B = _flops_for(baseline, baseline_BxP, loss_B, given) / flops
    low, high = _shared(baseline, method, given)
    refusal = None
    if np.isnan(ratio_B[0]):
        ratio_B[0] = math.inf
        reason = f"no compute within {_FAR:g} times the fitted takes the baseline to {loss_B[0]:.4g}"
        refusal = Refusal("unbounded", reason)
    elif not low * (1 - 1e-9) <= loss_B[0] <= high * (1 + 1e-9):
        span = f"[{low:.4g}, {high:.4g}]" if low < high else "nothing"
        reason = f"the loss {loss_B[0]:.4g} is not among those that both reach within their fitted compute: {span}"
        refusal = Refusal("extrapolated", f"{reason}; train the weaker one longer")
    return decide(ratio_B, refusal, math.inf, level, warnings=baseline.refusals + method.refusals)


def mean_multiplier(
    baseline: Fit,
    method: Fit,
    *,
    inputs: Mapping[str, float] | None = None,
    paired: bool = False,
    level: float = 0.95,
) -> Decision:
    """The geometric mean of the compute multiplier over the losses that both reach within their fitted compute.

    At 5 losses equally spaced from end to end. Refusals: "infeasible" (no loss is reached by both; the value is nan),
    "unstable" (a draw in ten misses a level), "few_groups" (no draws).
    """
    given = _given(baseline, method, inputs)
    low, high = _shared(baseline, method, given)
    warnings = baseline.refusals + method.refusals
    if not low < high:
        reason = f"no loss is reached by both within their fitted compute: the least common one would be {low:.4g}"
        refusal = Refusal("infeasible", f"{reason}, the greatest {high:.4g}; train the weaker one longer")
        return Decision(math.nan, math.nan, math.nan, level, refusal, warnings=warnings)
    loss_K = np.linspace(low, high, _LEVELS)
    logs = []
    for fit, parameters_BxP in zip((baseline, method), _pair(baseline, method, paired), strict=True):
        lanes_LxP = np.repeat(parameters_BxP, _LEVELS, axis=0)
        loss_L = np.tile(loss_K, len(parameters_BxP))
        logs.append(np.log(_flops_for(fit, lanes_LxP, loss_L, given)).reshape(-1, _LEVELS))
    return decide(np.exp((logs[0] - logs[1]).mean(axis=1)), None, math.inf, level, warnings=warnings)


def path_loss(fit: Fit, parameters_LxP: np.ndarray, flops_L: np.ndarray, inputs: Mapping[str, float]) -> np.ndarray:
    """The loss of each parameter vector at its compute, [L]: at C, or least over N and D at C = 6*N*D.

    Nan where N and D have no optimum between 1e-4 and 1e8 tokens per parameter.
    """
    names = set(fit.law.input_names) - set(inputs)
    if names == {"C"}:
        return at_own(fit.law, parameters_LxP, {**inputs, "C": flops_L[:, None]})[:, 0]
    if names != {"N", "D"}:
        raise ValueError(
            f"fit: law {fit.law.name!r} needs {fit.law.input_names}; beside inputs= {sorted(inputs)} these must leave"
            " C, or N and D"
        )
    half_Lx1 = np.sqrt(flops_L / 6)[:, None]

    def loss(log_ratio_LxK: np.ndarray) -> np.ndarray:
        root_LxK = np.exp(log_ratio_LxK / 2)
        return at_own(fit.law, parameters_LxP, {**inputs, "N": half_Lx1 / root_LxK, "D": half_Lx1 * root_LxK})

    grid_K = np.linspace(math.log(1e-4), math.log(1e8), 33)
    _, loss_L, end_L = lowest(loss, grid_K, len(flops_L), narrowings=18)  # leaves 3e-4 of log N: 1e-8 of the loss
    return np.where(end_L == 0, loss_L, np.nan)


def _given(baseline: Fit, method: Fit, inputs: Mapping[str, float] | None) -> dict[str, float]:
    for fit in (baseline, method):
        check_inputs(fit.law, inputs or {})
    return dict(inputs or {})


def _fitted_flops(fit: Fit) -> tuple[float, float]:
    inputs = fit.points.fitted.inputs
    flops_M = inputs["C"] if "C" in inputs else 6 * inputs["N"] * inputs["D"]
    return float(flops_M.min()), float(flops_M.max())


def _shared(baseline: Fit, method: Fit, inputs: Mapping[str, float]) -> tuple[float, float]:
    """The lowest and highest loss that both estimates reach between their least and greatest fitted compute."""
    ends = [
        path_loss(fit, np.repeat(with_estimate(fit)[:1], 2, axis=0), np.array(_fitted_flops(fit)), inputs)
        for fit in (baseline, method)
    ]
    return max(float(end[1]) for end in ends), min(float(end[0]) for end in ends)


def _flops_for(fit: Fit, parameters_LxP: np.ndarray, loss_L: np.ndarray, inputs: Mapping[str, float]) -> np.ndarray:
    """The compute at which each lane's path falls to its loss, by bisection; nan where it does not."""
    least, most = _fitted_flops(fit)
    low_L, high_L = (np.full(len(loss_L), math.log(end)) for end in (least / _FAR, most * _FAR))
    crosses_L = (path_loss(fit, parameters_LxP, np.exp(low_L), inputs) >= loss_L) & (
        path_loss(fit, parameters_LxP, np.exp(high_L), inputs) <= loss_L
    )
    for _ in range(_HALVINGS):
        middle_L = (low_L + high_L) / 2
        above_L = path_loss(fit, parameters_LxP, np.exp(middle_L), inputs) > loss_L
        low_L, high_L = np.where(above_L, middle_L, low_L), np.where(above_L, high_L, middle_L)
    return np.where(crosses_L, np.exp((low_L + high_L) / 2), np.nan)


def _pair(baseline: Fit, method: Fit, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    first_BxP, second_BxP = with_estimate(baseline), with_estimate(method)
    if paired:
        if len(first_BxP) != len(second_BxP):
            raise ValueError(
                f"paired: {len(first_BxP) - 1} draws of the baseline, {len(second_BxP) - 1} of the method; fit both to"
                " the same runs with the same seed and bootstrap"
            )
        return first_BxP, second_BxP
    draws = min(len(first_BxP), len(second_BxP)) - 1
    # fits of equally large tables with one seed resample the same places: shuffled, or their draws would seem paired
    order_B = np.random.default_rng(0).permutation(len(second_BxP) - 1)[:draws] + 1
    return first_BxP[: draws + 1], second_BxP[np.concatenate([[0], order_B])]
