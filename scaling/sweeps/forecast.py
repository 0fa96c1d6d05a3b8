"""What a curve will end at: the annealing law extrapolated from the curve so far, as a distribution, in closed form.

The law of Tissue et al. 2024 (arXiv 2408.11029) without momentum: L = L0 + A/S^alpha + C*lr/peak, S the sum of the
rates up to a step. What it assumes, as shares of the loss now:
  - the excess that shrinks with S may have any exponent of EXPONENTS, and a slope at present of 0 +- SLOPE an e-fold;
  - a decay from the peak to zero lowers the loss by DECAY = 3% +- 5%. A constant stretch says nothing about it: before
    a decay has begun its whole uncertainty is in the forecast; as the rate falls, the curve itself tells more;
  - the curve wanders round the law, points within an e-fold of S together: shares WANDER of the scatter, the rest is
    independent from point to point, in proportion to the known standard errors. The scatter is one of SCATTER.

A mixture over exponents, scatters and shares, each weighed by how well it explains the points; float64 numpy.

Letters: M points, T steps, G combinations, A exponents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

EXPONENTS = np.geomspace(0.1, 3.0, 24)
SCATTER = np.geomspace(5e-4, 0.1, 12)
WANDER = (0.5, 0.9)
SLOPE = 0.2
DECAY = (0.03, 0.05)
WINDOW = 0.2  # points from this share of the last step on: earlier ones follow another law
LEAST, MOST = 4, 20  # points
_NEGLIGIBLE = 1e-6  # weight of a combination against that of the best
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Forecast:
    """A mixture of G normal distributions of the final loss."""

    weight_G: np.ndarray
    mean_G: np.ndarray
    deviation_G: np.ndarray

    def quantile(self, share: float) -> float:
        """The loss below which the end lies with probability `share`, by bisection."""
        low = float((self.mean_G - 9 * self.deviation_G).min())
        high = float((self.mean_G + 9 * self.deviation_G).max())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = float(self.weight_G @ ndtr((middle - self.mean_G) / self.deviation_G))
            low, high = (middle, high) if below < share else (low, middle)
        return (low + high) / 2

    def chance_below(self, other: Forecast) -> float:
        """Probability to end below another curve, were their errors independent.

        Curves of one text and schedule err alike, so that independence widens the difference: it is the careful side.
        """
        spread_GxG = np.hypot(self.deviation_G[:, None], other.deviation_G[None])
        chance_GxG = ndtr((other.mean_G[None] - self.mean_G[:, None]) / spread_GxG)
        return float(self.weight_G @ chance_GxG @ other.weight_G)


def used_points(step_M: np.ndarray, rate_T: np.ndarray) -> np.ndarray:
    """Indices of the points that a forecast rests on: after the warm-up, the last WINDOW of the steps, thinned to MOST.

    The warm-up ends where the rate is first at its peak.
    """
    peak_step = int(np.argmax(rate_T)) + 1
    index = np.flatnonzero(step_M >= max(peak_step, WINDOW * step_M[-1])) if len(step_M) else np.zeros(0, int)
    if len(index) <= MOST:
        return index
    wanted = np.geomspace(step_M[index[0]], step_M[index[-1]], MOST)
    return np.unique(index[np.abs(step_M[index][:, None] - wanted).argmin(axis=0)])


def forecast(step_M: np.ndarray, loss_M: np.ndarray, error_M: np.ndarray, rate_T: np.ndarray) -> Forecast:
    """The loss after the last step of `rate_T`, from losses after steps `step_M` (rising, >= 1) of the same run.

    `error_M`: standard errors, which weigh the points against one another; NaN for all where they are not known.
    Raises ValueError for fewer than LEAST points after the warm-up.
    """
    index = used_points(step_M, rate_T)
    if len(index) < LEAST:
        raise ValueError(f"step_M: {len(index)} points to forecast from, at least {LEAST} needed after the warm-up")
    step_M, loss_M, error_M = step_M[index], loss_M[index], error_M[index]
    area_T, height_T = np.cumsum(rate_T), rate_T / rate_T.max()
    log_area_M = np.log(area_T[step_M - 1] / area_T[step_M[-1] - 1])
    log_area_end = float(np.log(area_T[-1] / area_T[step_M[-1] - 1]))
    height_M = height_T[step_M - 1]
    design_AxMx3 = _design(log_area_M, height_M - height_M[-1])
    end_Ax3 = _design(np.array([log_area_end]), np.array([height_T[-1] - height_M[-1]]))[:, 0]
    unit = loss_M[-1]
    independent_M = np.ones(len(index)) if np.isnan(error_M).any() else error_M**2 / np.mean(error_M**2)
    parts = [_condition(design_AxMx3, end_Ax3, loss_M / unit, log_area_M, log_area_end, independent_M, share)
             for share in WANDER]
    evidence_G, mean_G, variance_G = (np.concatenate([part[i].ravel() for part in parts]) for i in range(3))
    weight_G = np.exp(evidence_G - evidence_G.max())
    kept = weight_G > _NEGLIGIBLE
    return Forecast(weight_G[kept] / weight_G[kept].sum(), mean_G[kept] * unit, np.sqrt(variance_G[kept]) * unit)


def _design(log_area_M: np.ndarray, height_M: np.ndarray) -> np.ndarray:
    """Columns of level now, shrinking excess (slope -1 an e-fold now) and height of the rate over the present one."""
    excess_AxM = np.expm1(-EXPONENTS[:, None] * log_area_M) / EXPONENTS[:, None]
    return np.stack([np.ones_like(excess_AxM), excess_AxM, np.broadcast_to(height_M, excess_AxM.shape)], axis=-1)


def _condition(
    design_AxMx3: np.ndarray, end_Ax3: np.ndarray, loss_M: np.ndarray, log_area_M: np.ndarray, log_area_end: float,
    independent_M: np.ndarray, wander: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log evidence of the points, mean and variance of the end, each [A, scatter], of normal priors and noise."""
    prior_3, prior_3x3 = np.array([1.0, 0.0, DECAY[0]]), np.diag([1.0, SLOPE, DECAY[1]]) ** 2
    near_MxM = np.exp(-np.abs(log_area_M[:, None] - log_area_M))
    near_end_M = np.exp(-np.abs(log_area_M - log_area_end))
    noise_MxM = wander * near_MxM + (1 - wander) * np.diag(independent_M)
    square_S = SCATTER**2
    law_AxMxM = design_AxMx3 @ prior_3x3 @ design_AxMx3.swapaxes(1, 2)
    cross_AxM = (design_AxMx3 @ prior_3x3 @ end_Ax3[:, :, None])[..., 0]
    own_A = np.einsum("ai,ij,aj->a", end_Ax3, prior_3x3, end_Ax3)
    covariance = law_AxMxM[:, None] + square_S[:, None, None] * noise_MxM
    cross_AxSxM = cross_AxM[:, None] + wander * square_S[:, None] * near_end_M
    left_AxM = loss_M - design_AxMx3 @ prior_3
    left_AxSxM = np.broadcast_to(left_AxM[:, None], cross_AxSxM.shape)
    solved = np.linalg.solve(covariance, np.stack([left_AxSxM, cross_AxSxM], axis=-1))
    evidence = -(np.sum(left_AxSxM * solved[..., 0], axis=-1) + np.linalg.slogdet(covariance)[1]) / 2
    mean = (end_Ax3 @ prior_3)[:, None] + np.sum(cross_AxSxM * solved[..., 0], axis=-1)
    return evidence, mean, own_A[:, None] + square_S - np.sum(cross_AxSxM * solved[..., 1], axis=-1)
