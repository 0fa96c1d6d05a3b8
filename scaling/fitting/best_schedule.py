"""The schedule that minimises a fitted law's final loss for a horizon, a peak and a floor.

Letters: T steps, K knots, B bootstrap draws.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from scaling.fitting.inversions import Decision
from scaling.fitting.result import Fit, Refusal, tails
from scaling.laws.convex_bound import bound
from scaling.laws.convex_bound import final_loss as convex_loss
from scaling.laws.multi_power import final_loss as multi_power_loss
from scaling.laws.schedule import MOMENTUM, areas, cosine, wsd

KNOTS = 100
GAP = 1e-5  # share of the loss that a schedule called best may leave: to schedules nearby, to first order; to one drop
DROPS = 200  # places that one drop is tried at
REACH = 2.0  # how far beyond the fitted steps, areas and rates a law is believed
_SMOOTH: dict[str, Callable[[Mapping[str, Any], Any], jax.Array]] = {
    "multi-power": multi_power_loss,
    "convex-bound": convex_loss,
}


@dataclass(frozen=True, eq=False)
class BestSchedule:
    """A schedule, the final loss predicted for it, and by how much that beats others, nats/token.

    `gains`: predicted final loss of a cosine and of WSD (`wsd`: linear decay over the last fifth) to the same floor,
    less that of the best; intervals over the fit's draws, at the schedule that is best for the estimate. `refusals`:
    why not to bet on it. `warnings`: what the fit itself was refused.
    """

    lr_T: np.ndarray
    loss: Decision
    gains: dict[str, Decision]
    refusals: tuple[Refusal, ...]
    warnings: tuple[Refusal, ...]

    def __str__(self) -> str:
        lines = [f"final loss {self.loss}"] + [f"gain over {name}: {gain}" for name, gain in self.gains.items()]
        lines += [f"refused, {refusal}" for refusal in self.refusals]
        return "\n".join(lines + [f"the fit was refused, {warning}" for warning in self.warnings])


def best_schedule(
    fit: Fit, *, steps: int, peak: float, floor: float, warmup: int, momentum: float = MOMENTUM, level: float = 0.95
) -> BestSchedule:
    """Minimises the final loss that a fit predicts over warm-up, then rates that never rise, from `peak` to >= `floor`.

    For "multi-power" and "convex-bound": drops at up to 100 knots, linear between, by sequential quadratic programming
    from a late and from a full linear decay; expanded to every step. It is the best of the gradual schedules near
    those: the multi-power law counts a drop by the rate after it, and with its published constants one drop from peak
    to floor ends lower in 42 of 54 settings (3 sizes, 2,000 to 10,000 steps, floors of 1/10 and 1/60 of the peak), by
    0.0003 to 0.006 nats, but not at the paper's floor of 1e-10. For "annealing": one drop from peak to floor, n steps
    before the end, or none, the optimum but for 1e-7 of the loss at 300 steps and more. `momentum` is the one its areas
    were made with.

    Refusals: "no_interior_minimum" (one drop ends lower than the gradual schedule; annealing always: its bonus rewards
    a drop whatever its shape, so it decays at once), "extrapolated" (steps, area or rates more than twice outside what
    was fitted). ValueError for another law, or for lengths and rates that make no schedule. Luo et al. 2025 optimise
    every step by Adam; this needs a few hundred evaluations.
    """
    if fit.law.name not in (*_SMOOTH, "annealing"):
        raise ValueError(
            f"fit: of law {fit.law.name!r}; the best schedule is known for {', '.join(_SMOOTH)}, annealing"
        )
    if not (0 < floor < peak and 0 <= warmup < steps - 2):
        raise ValueError(
            f"floor {floor:g} must lie in (0, peak = {peak:g}), warmup {warmup} in [0, {steps - 2}): steps {steps}"
        )
    loss: Callable[..., Any]
    if fit.law.name == "annealing":
        lr_T = _one_drop(fit.parameters, steps, peak, floor, warmup, momentum)
        loss = partial(_annealing_loss, warmup=warmup, momentum=momentum)
        abrupt = _annealing_refusal(lr_T, peak, warmup)
    else:
        loss = _SMOOTH[fit.law.name]
        lr_T = smooth_optimum(partial(loss, fit.parameters), steps, peak, floor, warmup)
        abrupt = _drop_refusal(fit, partial(loss, fit.parameters), lr_T, peak, floor, warmup)
    decay = min(steps // 5, steps - warmup)
    others = {"cosine": cosine(steps, peak, floor, warmup), "wsd": wsd(steps, peak, floor, warmup, decay)}
    refusals = (*abrupt, *_extrapolated(fit, lr_T, warmup, momentum))
    decide = partial(_decision, refusal=refusals[0] if refusals else None, level=level)
    best_B = _losses(fit, loss, lr_T)
    gains = {name: decide(_losses(fit, loss, other_T) - best_B) for name, other_T in others.items()}
    return BestSchedule(lr_T, decide(best_B), gains, refusals, fit.refusals)


def _annealing_loss(p: Mapping[str, Any], lr_T: np.ndarray, warmup: int, momentum: float) -> Any:
    s1_T, s2_T = areas(lr_T, warmup=warmup, momentum=momentum)
    return p["L0"] + p["A"] * s1_T[-1] ** -p["alpha"] - p["C"] * s2_T[-1]


def _one_drop(
    p: Mapping[str, float], steps: int, peak: float, floor: float, warmup: int, momentum: float
) -> np.ndarray:
    """The annealing law's optimum among all non-increasing schedules: every drop has its best place n steps before the
    end, where C*(1-momentum^n)/(1-momentum) - mu*n is largest, mu the price of forward area: the same n for all.
    """
    left_T = np.arange(steps - warmup)  # steps that see the lower rate
    s1_T = peak * steps - (peak - floor) * left_T
    s2_T = (peak - floor) * (1 - momentum**left_T) / (1 - momentum)
    n = int(np.argmin(p["A"] * s1_T ** -p["alpha"] - p["C"] * s2_T))
    lr_T = wsd(steps, peak, peak, warmup, 0)
    lr_T[steps - n :] = floor
    return lr_T


def smooth_optimum(loss: Callable[[Any], jax.Array], steps: int, peak: float, floor: float, warmup: int) -> np.ndarray:
    """The best gradual, non-increasing schedule after a linear warm-up under a differentiable final loss, [T]."""
    edges = np.unique(np.round(np.linspace(max(warmup, 1) - 1, steps - 1, KNOTS + 1)).astype(int))
    width_K = np.diff(edges)
    knot_T = np.clip(np.searchsorted(edges[1:], np.arange(steps)), 0, len(width_K) - 1)
    falls_T = np.arange(steps) > edges[0]
    start_T = wsd(steps, peak, peak, warmup, 0)

    def schedule(share_K: Any) -> Any:
        """`share_K`: the drop of each interval as a share of peak - floor."""
        drop_T = jnp.where(falls_T, (1 - 1e-9) * (peak - floor) * (share_K / width_K)[knot_T], 0.0)
        rate_T = jnp.asarray(start_T) - jnp.cumsum(drop_T)
        return jnp.maximum(rate_T, jnp.where(falls_T, floor / 2, 0.0))  # not the floor, where it would take the slope

    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(lambda share_K: loss(schedule(share_K))))
        unit = abs(float(evaluate(np.full(len(width_K), 1e-3))[0])) * 1e-3

        def scaled(share_K: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope_K = evaluate(share_K)
            return float(value) / unit, np.asarray(slope_K) / unit

        ends = [
            minimize(
                scaled,
                np.where(np.arange(len(width_K)) >= len(width_K) - falling, 0.95 / falling, 0.0),
                jac=True,
                method="SLSQP",
                bounds=[(0.0, 1.0)] * len(width_K),
                constraints={"type": "ineq", "fun": lambda y_K: 1 - y_K.sum(), "jac": lambda y_K: -np.ones(len(y_K))},
                options={"maxiter": 500, "ftol": 1e-9},
            )
            for falling in (len(width_K) // 5, len(width_K))
        ]
        best = min(ends, key=lambda end: end.fun)
        slope_K = scaled(best.x)[1]
        gap = float(slope_K @ best.x - min(0.0, slope_K.min()))  # what a step within the constraints could still win
        if not gap <= GAP * abs(best.fun):  # SLSQP's own verdict turns on the last digit of the loss
            raise FloatingPointError(f"schedule: no optimum found for {steps} steps ({best.message}; a share "
                                     f"{gap / abs(best.fun):.1e} of the loss may be left, {GAP:.0e} asked)")
        return np.maximum(schedule(np.clip(best.x, 0.0, 1.0)), np.where(falls_T, floor, 0.0))


def _losses(fit: Fit, loss: Callable[..., Any], lr_T: np.ndarray) -> np.ndarray:
    """Final loss of a schedule at the estimate and at every draw, [1 + B]."""
    parameters_BxP = np.concatenate([[list(fit.parameters.values())], fit.draws_BxP])
    by_name = {name: parameters_BxP[:, i] for i, name in enumerate(fit.parameters)}
    if fit.law.name == "annealing":
        return np.asarray(loss(by_name, lr_T))
    with jax.enable_x64(True):
        one = jax.jit(lambda p: loss(p, jnp.asarray(lr_T)))
        return np.asarray(jax.lax.map(one, {name: jnp.asarray(column) for name, column in by_name.items()}))


def _decision(value_B: np.ndarray, refusal: Refusal | None, level: float) -> Decision:
    value, draws_B = float(value_B[0]), value_B[1:]
    low, high = np.quantile(draws_B, tails(level)).tolist() if len(draws_B) else (math.nan, math.nan)
    missing = None if len(draws_B) else Refusal("few_groups", "the fit has no bootstrap draws, so no interval")
    return Decision(value, low, high, level, refusal or missing, draws_B=draws_B)


def _annealing_refusal(lr_T: np.ndarray, peak: float, warmup: int) -> tuple[Refusal, ...]:
    n = int((lr_T[warmup:] < peak).sum())
    reason = f"falls from the peak to the floor at once, {n} steps before the end" if n else "never falls"
    return (
        Refusal(
            "no_interior_minimum",
            f"the annealing law's best schedule {reason}: its bonus C*S2 does not see how the rate falls; use it to"
            " compare schedules, or fit the multi-power law to shape one",
        ),
    )


def _drop_refusal(
    fit: Fit, loss: Callable[[Any], jax.Array], lr_T: np.ndarray, peak: float, floor: float, warmup: int
) -> tuple[Refusal, ...]:
    """Refuses a gradual schedule that one drop from the peak to the floor beats."""
    steps = len(lr_T)
    n_J = np.unique(np.round(np.geomspace(1, steps - warmup - 1, DROPS)).astype(int))
    up_T = wsd(steps, peak, peak, warmup, 0)
    with jax.enable_x64(True):
        own = float(loss(jnp.asarray(lr_T)))
        falls_at = jax.jit(lambda n: loss(jnp.where(jnp.arange(steps) < steps - n, jnp.asarray(up_T), floor)))
        drop_J = np.asarray(jax.lax.map(falls_at, jnp.asarray(n_J)))
    best = int(np.argmin(drop_J))
    if not drop_J[best] < own - GAP * abs(own):
        return ()
    return (
        Refusal(
            "no_interior_minimum",
            f"the {fit.law.name} law ends {own - drop_J[best]:.2g} lower under one drop from the peak to the floor,"
            f" about {n_J[best]} steps before the end: this is the best of the gradual schedules, not of all; train"
            " both before you bet on either",
        ),
    )


def _extrapolated(fit: Fit, lr_T: np.ndarray, warmup: int, momentum: float) -> tuple[Refusal, ...]:
    found = []
    asked = {
        "multi-power": lambda: {"step": len(lr_T) - 1},
        "annealing": lambda: {"S1": areas(lr_T, warmup=warmup, momentum=momentum)[0][-1]},
        "convex-bound": lambda: {"distance": bound(lr_T).distance},
    }[fit.law.name]()
    for name, value in asked.items():
        low, high = fit.ranges[name]
        if value > REACH * high or (name == "distance" and value < low / REACH):
            reason = f"the schedule ends at {name} = {value:.4g}, fitted were {low:.4g} to {high:.4g}"
            found.append(Refusal("extrapolated", f"{reason}; fit longer runs, or ask for fewer steps"))
    return (*found, *_rate_refusals(fit, lr_T))


def _rate_refusals(fit: Fit, lr_T: np.ndarray) -> list[Refusal]:
    """Rates far outside those of the fitted rows, known for the multi-power law alone."""
    if fit.law.name != "multi-power":
        return []
    tables, points = fit.law.arguments["schedules"], fit.points.fitted
    names = next(i.labels for i in fit.law.inputs if i.labels)
    pairs = zip(points.inputs["schedule"].astype(int), points.inputs["step"].astype(int), strict=True)
    rates = [tables[names[code]][step] for code, step in pairs]
    found = []
    for rate, outside in ((lr_T[-1], lr_T[-1] < min(rates) / REACH), (lr_T.max(), lr_T.max() > REACH * max(rates))):
        if outside:
            reason = f"the schedule has the rate {rate:.3g}, fitted were {min(rates):.3g} to {max(rates):.3g}"
            found.append(Refusal("extrapolated", f"{reason}; set the floor and the peak within what was fitted"))
    return found
