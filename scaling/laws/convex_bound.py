"""What convex optimisation says of a schedule: the last-iterate bound of SGD, the base rate that minimises it, and the
bound as a law of the loss.

Letters: T steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from scaling.laws.law import Input, Law, Parameter
from scaling.laws.schedule import Schedules, with_columns

_SCHAIPP = "Schaipp et al. 2025, arXiv 2501.18965 (Theorem 10 of Defazio et al. 2023, arXiv 2310.07831)"


@dataclass(frozen=True)
class Bound:
    """Omega(gamma) = distance/gamma + noise*gamma, for the base rate gamma that multiplies a schedule."""

    distance: float
    noise: float

    def at(self, rate: float) -> float:
        """Omega at a base rate."""
        return self.distance / rate + self.noise * rate

    @property
    def best_rate(self) -> float:
        """gamma* = sqrt(distance/noise)."""
        return math.sqrt(self.distance / self.noise)

    @property
    def best(self) -> float:
        """Omega* = 2*sqrt(distance*noise), the bound at the best rate."""
        return 2 * math.sqrt(self.distance * self.noise)


def bound(lr_T: np.ndarray, distance: float = 1.0, gradient_T: np.ndarray | float = 1.0) -> Bound:
    """The bound of a schedule eta, in O(T) by sums from the end.

    Omega = D^2/(2*gamma*sum eta) + gamma*[ sum eta^2 G^2/(2*sum eta)
      + 1/2*sum_{k<T} (eta_k/sum_{t>k} eta_t) * (sum_{t>=k} eta_t^2 G_t^2/sum_{t>=k} eta_t) ]
    for a convex objective with gradients <= G_t and D = ||x_1 - x*|| (`distance`). Steps of rate 0 at the end do
    nothing and are left out. It ranks schedules and gives gamma* up to a common factor; it is no loss. The paper's text
    quotes gamma* 0.92/sqrt(T) and 0.47/sqrt(T) (cosine, WSD-20%), the formula gives 0.970 and 0.514. ValueError for
    rates that are negative or all 0.
    """
    lr_T = np.asarray(lr_T, dtype=np.float64)
    if lr_T.ndim != 1 or (lr_T < 0).any() or not (lr_T > 0).any():
        raise ValueError(f"lr_T: {lr_T}, shape {lr_T.shape}; expected one rate >= 0 a step, some positive")
    last = int(np.flatnonzero(lr_T)[-1]) + 1
    square_T = np.square(lr_T * np.asarray(gradient_T, dtype=np.float64))[:last]
    inverse, noise = _terms(np, lr_T[:last], square_T)
    return Bound(float(distance**2 * inverse), float(noise))


def _terms(numpy: Any, lr_T: Any, square_T: Any) -> tuple[Any, Any]:
    """1/(2*sum eta) and the coefficient of gamma, from eta and (eta*G)^2, by numpy or jax.numpy."""
    area_T = numpy.cumsum(lr_T[::-1])[::-1]
    mean_T = numpy.cumsum(square_T[::-1])[::-1] / area_T
    return 1 / (2 * area_T[0]), mean_T[0] / 2 + numpy.sum(lr_T[:-1] / area_T[1:] * mean_T[:-1]) / 2


def best_rate(lr_T: np.ndarray, known_lr_T: np.ndarray, known_rate: float) -> float:
    """The peak rate for a schedule, from the one tuned for another: known_rate * gamma*(new)/gamma*(known).

    Both tables are shapes of the same peak (say 1). The factor D/G of the problem cancels.
    """
    return known_rate * bound(lr_T).best_rate / bound(known_lr_T).best_rate


def constant_bound(steps: int) -> Bound:
    """Closed form for a constant schedule, D = G = 1: distance 1/(2T), noise (1 + H_(T-1))/2."""
    return Bound(1 / (2 * steps), (1 + _harmonic(steps - 1)) / 2)


def wsd_bound(steps: int, start: int) -> float:
    """Upper bound on Omega* of constant, then linear cooldown to 0 from step `start` < steps - 1; D = G = 1.

    sqrt(a), a = 4/(T+S) * [2/3 + (T+2S)/(3(T+S)) + H_(T+S-2) - H_(T-S+1) - (T-S)(S-1)/(3(T-S+2)(T+S)) + 1/(T-S)^2
    + H_(T-S-1)/(T-S+1)].
    """
    t, s = steps, start
    if not 1 <= s < t - 1:
        raise ValueError(f"start: step {s} must lie in [1, {t - 1}), before the last step of the schedule")
    inner = 2 / 3 + (t + 2 * s) / (3 * (t + s)) + _harmonic(t + s - 2) - _harmonic(t - s + 1)
    inner += -(t - s) * (s - 1) / (3 * (t - s + 2) * (t + s)) + 1 / (t - s) ** 2 + _harmonic(t - s - 1) / (t - s + 1)
    return math.sqrt(4 / (t + s) * inner)


def _harmonic(n: int) -> float:
    return float(np.sum(1 / np.arange(1, n + 1)))


def with_bound_terms(table: pd.DataFrame, schedules: Schedules | Mapping[str, Any]) -> pd.DataFrame:
    """The table of logged points (`schedule`, `step`) with `distance` and `noise` of the schedule up to each point, the
    inputs of law "convex-bound"; O(T) a point. A point before the first positive rate is nan.
    """
    schedules = Schedules.of(schedules)

    def read(name: str, step_M: np.ndarray) -> dict[str, np.ndarray]:
        terms = {step: bound(schedules[name][: step + 1]) for step in np.unique(step_M).tolist()}
        return {key: np.array([getattr(terms[step], key) for step in step_M]) for key in ("distance", "noise")}

    return with_columns(table, schedules, read)


def _convex_bound(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return p["L0"] + p["D2"] * x["distance"] + p["G2"] * x["noise"]


def final_loss(p: Mapping[str, Any], lr_T: Any) -> jax.Array:
    """The law at the last step of a schedule, whose rate there must be > 0; differentiable in the schedule."""
    lr_T = jnp.asarray(lr_T)
    inverse, noise = _terms(jnp, lr_T, lr_T**2)
    return p["L0"] + p["D2"] * inverse + p["G2"] * noise


CONVEX_BOUND = Law(
    name="convex-bound",
    formula="L0 + D2*distance + G2*noise, Omega of the schedule up to the step",
    citation=_SCHAIPP,
    inputs=(
        Input("distance", "1/(2 x sum of learning rates)"),
        Input("noise", "the bound's coefficient of G^2, learning rate"),
    ),
    target="nats/token",
    parameters=(
        Parameter("L0", "positive", (0.05, 20.0), linear=True),
        Parameter("D2", "positive", (1e-6, 1e4), linear=True),
        Parameter("G2", "positive", (1e-6, 1e6), linear=True),
    ),
    predict=_convex_bound,
    notes="The paper compares the bound's shape with loss curves and fits nothing; that its two terms carry weights D^2"
    " and G^2 to be fitted is ours. Gradients constant. A bound, not a loss: only order and best rate transfer.",
)

LAWS = (CONVEX_BOUND,)
