"""Information criteria of a fit, for the likelihood that its objective is minus the logarithm of.

Letters: M rows, G groups, P parameters.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from scaling.fitting import objectives
from scaling.fitting.problem import Problem
from scaling.fitting.result import Fit
from scaling.fitting.solver import Expansion
from scaling.fitting.uncertainty import slopes


@dataclass(frozen=True, eq=False)
class Information:
    """Log likelihood and criteria of one fit; lower criteria are better.

    `log_likelihood_G`: contribution of each group. `independent`: the number of independent observations, for which the
    criteria are stated. `tic` needs no such number: its penalty is Takeuchi's, with scores summed by group.
    """

    log_likelihood_G: np.ndarray
    dispersion: float
    independent: float
    aic: float
    aicc: float
    bic: float
    tic: float


def information(fit: Fit, independent: float | None = None) -> Information:
    """Criteria of a fit to its fitted rows.

    Likelihood: residuals r (on the objective's scale) of density exp(-H(r)/phi)/Z(phi), H the objective's Huber
    function, Z(phi) = sqrt(2 pi phi) (2 Phi(delta/sqrt(phi)) - 1) + 2 phi/delta exp(-delta^2/(2 phi)), phi fitted:
    normal for least squares, close to Laplace for a small delta. A row of weight w counts w times. Factors that do not
    depend on the law (the Jacobian of log, known errors) are left out: compare fits to the same rows on one scale only.

    AIC = -2 l + 2 k, AICc = AIC + 2k(k+1)/(n-k-1) (inf where n <= k + 1), BIC = -2 l + k log n, k = P + 1 for phi. Rows
    of one group (run) are not independent: n is `independent`, by default `effective(fit)`, and l is scaled by n over
    the rows' weight. TIC = -2 l + 2 (tr(H^-1 J) + 1), l unscaled, J from scores summed by group (Takeuchi 1976; for
    correlated rows Varin and Vidoni 2005, Biometrika 92, 519-528): the counterpart of WAIC for M-estimators.
    """
    problem = Problem(fit.law, fit.objective, fit.points.fitted)
    near = _expansion(fit, problem)
    points, delta = problem.points, fit.objective.delta
    total = float(points.weight_M.sum())
    loss_M = points.weight_M * _huber(near.residual_M, delta)
    phi = _dispersion(float(loss_M.sum()) / total, delta)
    row_M = -loss_M / phi - points.weight_M * _log_normaliser(phi, delta)
    log_likelihood = float(row_M.sum())
    k = len(near.parameters_P) + 1
    n = effective(fit) if independent is None else independent
    deviance = -2 * log_likelihood * n / total
    return Information(
        np.bincount(points.group_M, row_M),
        phi,
        n,
        deviance + 2 * k,
        deviance + 2 * k + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf),
        deviance + k * math.log(n),
        -2 * log_likelihood + 2 * (_effective_parameters(problem, near, phi) + 1),
    )


def effective(fit: Fit) -> float:
    """Independent observations in the fitted rows: sum over groups of w/(1 + (w - 1) rho), w the group's weight.

    rho is the correlation of two residuals of one group (scores, so that outliers do not rule), by analysis of variance
    and at least 0 (Kish 1965). One row a group: the rows' weight.
    """
    problem = Problem(fit.law, fit.objective, fit.points.fitted)
    points, delta = problem.points, fit.objective.delta
    score_M = np.clip(_expansion(fit, problem).residual_M, -delta, delta)
    size_G, sum_G = np.bincount(points.group_M), np.bincount(points.group_M, score_M)
    rows, groups = len(points), points.groups
    weight_G = np.bincount(points.group_M, points.weight_M)
    if rows == groups:
        return float(weight_G.sum())
    within = np.sum((score_M - (sum_G / size_G)[points.group_M]) ** 2) / (rows - groups)
    between = np.sum(sum_G**2 / size_G) / groups  # residuals have mean 0 by the law, not by the groups' own mean
    usual = (rows - np.sum(size_G**2) / rows) / max(groups - 1, 1) if groups > 1 else rows
    shared = max((between - within) / usual, 0.0)
    rho = shared / (shared + within) if shared + within > 0 else 0.0
    return float(np.sum(weight_G / (1 + np.maximum(weight_G - 1, 0.0) * rho)))


def _huber(residual_M: np.ndarray, delta: float) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(objectives.loss(jnp.asarray(residual_M), delta))


def _expansion(fit: Fit, problem: Problem) -> Expansion:
    return problem.expansion(problem.coordinates(np.array([list(fit.parameters.values())]))[0])


def _log_normaliser(phi: float, delta: float) -> float:
    """log Z(phi)."""
    if math.isinf(delta):
        return math.log(2 * math.pi * phi) / 2
    at = delta / math.sqrt(phi)
    inside = math.sqrt(2 * math.pi * phi) * (2 * stats.norm.cdf(at) - 1)
    return math.log(inside + 2 * phi / delta * math.exp(-(at**2) / 2))


def _dispersion(mean_loss: float, delta: float) -> float:
    """phi of greatest likelihood: minimises mean loss/phi + log Z(phi); 2*mean loss for least squares."""
    if not mean_loss > 0:
        raise ValueError(
            "objective: 0, the law meets every row exactly, so its likelihood has no maximum; compare laws"
            " on measured data, or by held out error"
        )
    if math.isinf(delta):
        return 2 * mean_loss
    start = math.log(2 * mean_loss)
    found = optimize.minimize_scalar(
        lambda log_phi: mean_loss / math.exp(log_phi) + _log_normaliser(math.exp(log_phi), delta),
        bounds=(start - 3, start + 20),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(found.x)


def _effective_parameters(problem: Problem, near: Expansion, phi: float) -> float:
    """tr(H^-1 J): H the expected curvature of the log likelihood, J the variance of its score, by group."""
    points, delta = problem.points, problem.objective.delta
    bent_PxM = near.jacobian_PxM * (points.weight_M * slopes(near.residual_M, delta))
    score_GxP = np.zeros((points.groups, len(near.parameters_P)))
    score_M = points.weight_M * np.clip(near.residual_M, -delta, delta)
    np.add.at(score_GxP, points.group_M, (near.jacobian_PxM * score_M).T)
    bread_PxP = np.linalg.pinv(bent_PxM @ near.jacobian_PxM.T, hermitian=True)
    return float(np.trace(bread_PxP @ score_GxP.T @ score_GxP)) / phi
