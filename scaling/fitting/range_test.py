"""The learning-rate range test: the largest rate that a run whose rate grows can still bear.

Letters: T steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling.fitting.result import Refusal

SMOOTHING, WITHIN = 0.9, 0.01
FIRST_RATES = (25.0, 10.0)  # lr_min, where a cycle up to lr_max starts: lr_max over these


@dataclass(frozen=True, eq=False)
class RangeTest:
    """A test's rates and losses, its smoothed loss (nats/token, inf once diverged), and `highest`, lr_max.

    `refusal`: why `highest` says nothing; it is then the end of the range on the side where the answer lies.
    """

    rate_T: np.ndarray
    loss_T: np.ndarray
    smoothed_T: np.ndarray
    highest: float
    refusal: Refusal | None


def growing_rates(lowest: float, highest: float, steps: int, growth: str) -> np.ndarray:
    """Rates of a test from `lowest` to `highest`, float64[T], "exponential" or "linear".

    ValueError for rates that are not 0 < lowest < highest, fewer than 2 steps, another growth.
    """
    if not (0 < lowest < highest < math.inf and steps >= 2):
        raise ValueError(f"rates {lowest:g} to {highest:g} in {steps} steps: expected 0 < lowest < highest and 2 steps "
                         "or more")
    if growth not in ("exponential", "linear"):
        raise ValueError(f"growth: {growth!r} must be exponential or linear")
    return (np.geomspace if growth == "exponential" else np.linspace)(lowest, highest, steps)


def smoothed(loss_T: np.ndarray, smoothing: float) -> np.ndarray:
    """Exponential moving average free of its start: s_t = b s_(t-1) + (1-b) l_t, divided by 1 - b^(t+1).

    It lags by about 1/(1-b) steps. A loss that is not finite is inf, and so are all after it.
    """
    total, averages = 0.0, np.full(len(loss_T), np.inf)
    for t, loss in enumerate(np.asarray(loss_T, dtype=np.float64).tolist()):
        if not np.isfinite(loss):
            break
        total = smoothing * total + (1 - smoothing) * loss
        averages[t] = total / (1 - smoothing ** (t + 1))
    return averages


def range_test(rate_T: ArrayLike, loss_T: ArrayLike, *, smoothing: float = SMOOTHING, within: float = WITHIN
               ) -> RangeTest:
    """lr_max = max{eta_t : s_t <= (1 + within) min s}, s the smoothed loss of a run whose rate eta grows.

    Smith 2015, arXiv 1506.01186, and 2018, arXiv 1803.09820, read "just before the loss rises" off the plot; that the
    smoothed loss be within 1 % of its least is the usual rule for it. For gradient descent on a quadratic with
    curvature h it gives 2/h, without smoothing, noise or a loss that no training removes. With such a loss the rate
    grows on while the average lags: above 3 nats, rates over a factor of 5,000, an edge of 0.5 is read as 0.90 in 100
    steps, 0.63 in 400 and 0.54 in 2,000 (medians of 200 seeds, noise 0.03 nats in the last two); under noise of 0.1 as
    0.15 to 0.66. So grow slowly and keep a margin. One loss a step; nan and inf where the run diverged.

    Refused "no_interior_minimum" where the loss is least at the first rate, or still within bounds at the last.
    ValueError for rates that do not rise, lengths that differ, losses that are not positive or of which none is finite,
    a smoothing outside [0, 1).
    """
    rate_T, loss_T = np.asarray(rate_T, dtype=np.float64), np.asarray(loss_T, dtype=np.float64)
    if rate_T.shape != loss_T.shape or rate_T.ndim != 1 or len(rate_T) < 2 or (np.diff(rate_T) <= 0).any():
        raise ValueError(f"rates of shape {rate_T.shape}, losses of {loss_T.shape}: expected as many losses as rates, "
                         "2 or more, and rates that rise")
    if not np.isfinite(loss_T[0]) or (loss_T <= 0).any() or not 0 <= smoothing < 1:
        raise ValueError(f"loss_T starts {loss_T[:3]}, smoothing {smoothing}: expected positive losses, the first "
                         "finite, and a smoothing in [0, 1)")
    smoothed_T = smoothed(loss_T, smoothing)
    borne = np.flatnonzero(smoothed_T <= (1 + within) * smoothed_T.min())
    refusal, last = None, int(borne[-1])
    if smoothed_T.argmin() == 0:
        last, refusal = 0, Refusal("no_interior_minimum", f"the loss never falls below that at the first rate, "
                                   f"{rate_T[0]:.3g}; start lower")
    elif last == len(rate_T) - 1:
        refusal = Refusal("no_interior_minimum", f"the loss does not rise again up to the last rate, {rate_T[-1]:.3g}; "
                          "go higher")
    return RangeTest(rate_T, loss_T, smoothed_T, float(rate_T[last]), refusal)
