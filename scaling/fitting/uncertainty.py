"""What the curvature at the estimate says: a covariance clustered by group.

Letters: M points, P parameters, G groups.
"""

import math

import numpy as np

from scaling.fitting.points import Points
from scaling.fitting.solver import Expansion


def slopes(residual_M: np.ndarray, delta: float) -> np.ndarray:
    """H'' at each point, smoothed: 1 inside delta, 0 outside.

    Where delta is small against the noise too few points lie inside, so the window is widened to h and H'' is delta/h
    in it (Powell 1991): h = 1.06 * robust sd * n^(-1/5), and at least the sqrt(n)-th smallest size, so that residuals
    that all lie away from 0 still have a slope.
    """
    if math.isinf(delta):
        return np.ones_like(residual_M)
    size_M = np.abs(residual_M)
    least = float(np.sort(size_M)[math.ceil(math.sqrt(size_M.size)) - 1])
    width = max(delta, least, 1.06 * 1.4826 * float(np.median(size_M)) * size_M.size**-0.2)
    return (size_M <= width) * delta / width


def sandwich(
    jacobian_PxM: np.ndarray, residual_M: np.ndarray, weight_M: np.ndarray, group_M: np.ndarray, delta: float
) -> np.ndarray:
    """Covariance of the coordinates, robust to dependence within a group: H^-1 (sum_g s_g s_g^T) H^-1 * G/(G-1).

    s_g is the score of a group, H = J diag(w H'') J^T. NaN with fewer than two groups.
    """
    groups = int(group_M.max()) + 1
    if groups < 2:
        return np.full((len(jacobian_PxM),) * 2, np.nan)
    score_GxP = np.zeros((groups, len(jacobian_PxM)))
    np.add.at(score_GxP, group_M, (jacobian_PxM * (weight_M * np.clip(residual_M, -delta, delta))).T)
    bread_PxP = np.linalg.pinv((jacobian_PxM * (weight_M * slopes(residual_M, delta))) @ jacobian_PxM.T, hermitian=True)
    return bread_PxP @ (score_GxP.T @ score_GxP) @ bread_PxP * groups / (groups - 1)


def spent(jacobian_PxM: np.ndarray, weight_M: np.ndarray, group_M: np.ndarray) -> float:
    """How many groups the fit uses up: G tr(sum_g A_g^2)/P, A_g = I^-1/2 J_g w_g J_g^T I^-1/2, I = J w J^T.

    The number of parameters P where every group is one point of equal leverage; 1 where the groups are copies of one
    design (then the fit only averages them); up to G where groups determine parameters that no other group sees.
    """
    groups = int(group_M.max()) + 1
    scaled_PxM = jacobian_PxM * np.sqrt(weight_M)
    direction_PxR, size_R, _ = np.linalg.svd(scaled_PxM, full_matrices=False)
    kept_R = size_R > 1e-9 * size_R[0]
    whitened_RxM = (direction_PxR[:, kept_R] / size_R[kept_R]).T @ scaled_PxM
    squares = 0.0
    for group in range(groups):
        part_RxM = whitened_RxM[:, group_M == group]
        squares += float(np.sum((part_RxM @ part_RxM.T) ** 2))
    return groups * squares / int(kept_R.sum())


def covariance(near: Expansion, points: Points, delta: float) -> np.ndarray:
    """Covariance of the parameters: the sandwich, with (G - 1)/(G - spent) for the residuals that the fit made small.

    NaN with no more groups than the fit spends.
    """
    groups = points.groups
    clustered_PxP = sandwich(near.jacobian_PxM, near.residual_M, points.weight_M, points.group_M, delta)
    freedom = groups - spent(near.jacobian_PxM, points.weight_M, points.group_M)
    factor = (groups - 1) / freedom if freedom > 1e-6 else np.nan
    return near.change_PxP @ (clustered_PxP * factor) @ near.change_PxP.T
