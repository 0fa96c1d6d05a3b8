"""What is known of a law's parameters before the next run: vectors that are likely, and the information behind them.

Letters: B parameter vectors (the estimate in front), M rows, G runs, K candidate runs, P parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd

from scaling.fitting import coordinates, solver
from scaling.fitting.inversions import with_estimate
from scaling.fitting.problem import Problem
from scaling.fitting.result import Fit, Refusal
from scaling.laws.law import Law, Scale

_VECTORS = 16


@dataclass(frozen=True)
class Noise:
    """Variance of a residual, in `unit` on the objective's scale: the part that a run's rows share, and a row's own.

    As the objective sees it: the variance of score/slope, so that a Huber objective's loss of efficiency is in it.
    `unit` and `weight` are those of a new row.
    """

    run: float
    point: float
    unit: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Parameter vectors in coordinates, and at each the information H and the score variance F of the runs at hand.

    The covariance of the coordinates is H^-1 F H^-1. `influence_MxP`: what a row's residual adds to the score;
    `inputs`: of those rows; both empty where nothing has run yet.
    """

    law: Law
    scale: Scale
    reference_I: np.ndarray
    noise: Noise
    u_BxP: np.ndarray
    bread_BxPxP: np.ndarray
    meat_BxPxP: np.ndarray
    inputs: dict[str, np.ndarray]
    influence_MxP: np.ndarray
    warnings: tuple[Refusal, ...] = ()

    def of_runs(self, inputs: Mapping[str, np.ndarray], run_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Roots of H [K, B, P, R] and F [K, B, P, R+1] and influence [K, P] of new rows, by their runs.

        Runs are numbered from 0; H is root root'. R is the most rows that a run has; the others' roots end in zeros.
        """
        jacobian_BxPxM = _jacobian(self.law, self.scale, self.reference_I, self.u_BxP, inputs) / self.noise.unit
        weight_M = np.full(len(run_M), self.noise.weight)
        most, breads, meats, influences = int(np.bincount(run_M).max()), [], [], []
        for k in range(int(run_M.max()) + 1):
            rows_M = run_M == k
            bread_BxPxR, meat_BxPxR = _roots(jacobian_BxPxM[:, :, rows_M], weight_M[rows_M], self.noise)
            idle = [(0, 0), (0, 0), (0, most - int(rows_M.sum()))]
            breads.append(np.pad(bread_BxPxR, idle))
            meats.append(np.pad(meat_BxPxR, idle))
            influences.append(_influence(jacobian_BxPxM[0][:, rows_M], weight_M[rows_M], self.noise).sum(axis=0))
        return np.stack(breads), np.stack(meats), np.stack(influences)


def known_from(fit: Fit) -> Knowledge:
    """What a fit knows: its estimate and 15 bootstrap draws, its rows' information, its residuals' noise.

    The noise is taken from the scores: their covariance within runs is the shared part; both parts are scaled up for
    the parameters that the fit spent. New rows are taken to have the fit's mean weight and the geometric mean of its
    known errors. ValueError for a fit with no more runs than parameters, which leaves no noise to see.
    """
    problem = Problem(fit.law, fit.objective, fit.points.fitted)
    seen, parameters = problem.points, len(fit.law.parameters)
    if seen.groups <= parameters:
        raise ValueError(
            f"fit: {seen.groups} runs for the {parameters} parameters of law {fit.law.name!r} leave no residual to tell"
            " the noise from; add runs, or state the noise with `assumed`"
        )
    u_BxP = problem.coordinates(with_estimate(fit)[:_VECTORS])
    u_BxP = u_BxP[np.isfinite(u_BxP).all(axis=1)]
    unit_M = problem.data.unit_M[: len(seen)]
    run, point = _variances(problem.expansion(u_BxP[0]).residual_M, seen.group_M, fit.objective.delta, parameters)
    noise = Noise(run, point, float(np.exp(np.log(unit_M).mean())), float(seen.weight_M.mean()))
    reference_I = np.asarray(problem.data.reference_I)
    jacobian_BxPxM = _jacobian(fit.law, fit.objective.scale, reference_I, u_BxP, seen.inputs) / unit_M
    rows_GxM = seen.group_M == np.arange(seen.groups)[:, None]
    roots = [_roots(jacobian_BxPxM[:, :, rows_M], seen.weight_M[rows_M], noise) for rows_M in rows_GxM]
    bread_BxPxP, meat_BxPxP = (np.sum([_square(root) for root in part], axis=0) for part in zip(*roots, strict=True))
    influence_MxP = _influence(jacobian_BxPxM[0], seen.weight_M, noise)
    return Knowledge(
        fit.law,
        fit.objective.scale,
        reference_I,
        noise,
        u_BxP,
        bread_BxPxP,
        meat_BxPxP,
        dict(seen.inputs),
        influence_MxP,
        fit.refusals,
    )


def assumed(
    law: Law,
    parameters: Mapping[str, Any],
    *,
    noise: float,
    around: pd.DataFrame,
    run_noise: float = 0.0,
    spread: float = 1.0,
    columns: Mapping[str, str] | None = None,
) -> Knowledge:
    """What is assumed before any run, for a first design: published or guessed parameters, a scalar or a list each.

    `noise`, `run_noise`: standard deviations of a row's own residual and of the part its run shares, on the law's scale
    (0.005 of log loss is 0.5%). Each coordinate has the prior standard deviation `spread` (1: a factor of e in a
    positive parameter), coefficients taken at the geometric mean of `around`, the candidates. ValueError for other
    parameters than the law's, or noise or spread that is not positive.
    """
    if set(parameters) != set(law.parameter_names):
        raise ValueError(f"parameters: {sorted(parameters)} must be exactly {sorted(law.parameter_names)}")
    if not (noise > 0 and run_noise >= 0 and spread > 0):
        raise ValueError(f"noise: {noise}, spread: {spread} must be > 0 and run_noise: {run_noise} >= 0")
    columns_P = np.broadcast_arrays(*[np.atleast_1d(np.float64(parameters[name])) for name in law.parameter_names])
    reference_I = coordinates.reference(law, law.read_inputs(around, columns))
    u_BxP = np.stack([coordinates.from_parameters(law, row_P, reference_I) for row_P in np.stack(columns_P, axis=1)])
    if not np.isfinite(u_BxP).all():
        raise ValueError(f"parameters: {dict(parameters)} lie outside the domains of law {law.name!r}")
    prior_BxPxP = np.tile(np.eye(u_BxP.shape[1]) / spread**2, (len(u_BxP), 1, 1))
    none = {name: np.zeros(0) for name in law.input_names}
    influence_0xP = np.zeros((0, u_BxP.shape[1]))
    variances = Noise(run_noise**2, noise**2)
    return Knowledge(law, law.scale, reference_I, variances, u_BxP, prior_BxPxP, prior_BxPxP, none, influence_0xP)


def _jacobian(
    law: Law, scale: Scale, reference_I: np.ndarray, u_BxP: np.ndarray, inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Derivative of the prediction, on the objective's scale, by coordinates, [B, P, M]."""
    rows = len(next(iter(inputs.values())))
    padded = {name: np.resize(x_M, solver.pad(rows)) for name, x_M in inputs.items()}
    ones_M = np.ones(solver.pad(rows))
    with jax.enable_x64(True):
        return np.asarray(_jacobians(law, scale, solver.Data(padded, ones_M, ones_M, reference_I), u_BxP))[:, :, :rows]


@partial(jax.jit, static_argnames=("law", "scale"))
def _jacobians(law: Law, scale: Scale, data: solver.Data, u_BxP: jax.Array) -> jax.Array:
    return jax.vmap(lambda u_P: solver.residual_and_jacobian(law, scale, data, u_P)[1])(u_BxP)


def _roots(jacobian_BxPxM: np.ndarray, weight_M: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Roots of H [B, P, M] and F [B, P, M+1] of one run, in units in which F = H for a single row of weight 1."""
    total = noise.run + noise.point
    weighted_BxPxM = jacobian_BxPxM * weight_M / total
    shared_BxPx1 = weighted_BxPxM.sum(axis=2, keepdims=True)
    meat_BxPxR = np.concatenate([weighted_BxPxM * noise.point**0.5, shared_BxPx1 * noise.run**0.5], axis=2)
    return jacobian_BxPxM * np.sqrt(weight_M / total), meat_BxPxR


def _square(root_BxPxR: np.ndarray) -> np.ndarray:
    return root_BxPxR @ root_BxPxR.swapaxes(1, 2)


def _influence(jacobian_PxM: np.ndarray, weight_M: np.ndarray, noise: Noise) -> np.ndarray:
    return (jacobian_PxM * weight_M).T / (noise.run + noise.point)


def _variances(residual_M: np.ndarray, group_M: np.ndarray, delta: float, parameters: int) -> tuple[float, float]:
    """Variance of the run's part and of a row's own, of score/slope, corrected for the parameters spent.

    Where delta is small against the noise, a fit passes through about as many points as it has parameters, and neither
    the slope nor small quantiles of so few residuals can be trusted. The noise is then taken from their mean size, and
    variance and slope of the score from a normal law of that noise. The run's share is that of the scores.
    """
    groups, rows = int(group_M.max()) + 1, len(residual_M)
    score_M = np.clip(residual_M, -delta, delta)
    size_G, sum_G = np.bincount(group_M), np.bincount(group_M, score_M)
    square = float((score_M**2).sum())
    pairs = int((size_G * (size_G - 1)).sum())
    share = max((float((sum_G**2).sum()) - square) / pairs, 0.0) / (square / rows) if pairs and square else 0.0
    total = square / rows
    if np.isfinite(delta) and (sigma := math.sqrt(math.pi / 2) * float(np.abs(residual_M).sum()) / (rows - parameters)):
        edge = delta / sigma
        inside = math.erf(edge / math.sqrt(2))
        outside = edge * math.sqrt(2 / math.pi) * math.exp(-(edge**2) / 2)
        total = sigma**2 * (inside - outside + edge**2 * (1 - inside)) / inside**2
    if not total > 0:
        raise ValueError("fit: its residuals are all 0, so that there is no noise to plan against; use measured losses")
    share = min(share, 1.0)
    own = (1 - share) * total * (rows / (rows - parameters) if math.isinf(delta) else 1.0)
    return share * total * groups / (groups - parameters), own
