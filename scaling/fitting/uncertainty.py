"""What the curvature at the estimate says: a covariance clustered by group.

Letters: M points, P parameters, G groups.
"""

import math

import numpy as np


def slopes(residual_M: np.ndarray, delta: float) -> np.ndarray:
    """H'' at each point, smoothed: 1 inside delta, 0 outside.

    Where delta is small against the noise too few points lie inside, so the window is widened to h and H'' is delta/h
    in it (Powell 1991): h = 1.06 * robust sd * n^(-1/5).
    """
    if math.isinf(delta):
        return np.ones_like(residual_M)
    size_M = np.abs(residual_M)
    width = max(delta, 1.06 * 1.4826 * float(np.median(size_M)) * size_M.size**-0.2)
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
