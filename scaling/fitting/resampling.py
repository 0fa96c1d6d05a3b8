"""Random weights of whole groups: the points of one run share its noise, so a run is weighted as one.

Letters: B draws, G groups, M points.
"""

import numpy as np
from scipy import special, stats

from scaling.fitting import uncertainty
from scaling.fitting.points import Points
from scaling.fitting.solver import Expansion

MOST = 5.0  # variance of a weight beyond which nearly all weight would sit on one or two groups
FEWEST = 3  # groups whose weights are drawn together: those of two sum to 2, and cannot vary as much as they should


def random_weights(points: Points, variance: float, draws: int, seed: int) -> np.ndarray:
    """Weights of the rows for each draw of a fit, [B, M]: the `group_weights` of their groups."""
    return group_weights(points.group_M, points.stratum_M, variance, draws, seed)[:, points.group_M]


def variance_for(near: Expansion, points: Points, delta: float) -> float:
    """The `weight_variance` that a fit calls for."""
    spent = uncertainty.spent(near.jacobian_PxM, points.weight_M, points.group_M)
    return weight_variance(points.groups, spent, near.residual_M, points.weight_M, delta)


def group_weights(group_M: np.ndarray, stratum_M: np.ndarray, variance: float, draws: int, seed: int) -> np.ndarray:
    """Random weights of the groups for each draw, [B, G]: gamma, summing within each stratum to the number of its
    groups, of mean 1 and `variance` (the Bayesian bootstrap, Rubin 1981, has that of exponential ones).

    No group is ever left out, so every draw can be fitted. The total score of a stratum's n groups varies about the
    stratum's mean, which takes one of its degrees of freedom: by v*n/(n - 1) of the squares there, over G/(G - 1) of
    all G groups, which `variance` holds already. Weights drawn with variance u*n/(n - u), at most `MOST`, and scaled to
    their sum do that for u = v*n/(n - 1)*(G - 1)/G. Strata of fewer than `FEWEST` groups are drawn with the next
    smallest (collapsed strata, Cochran 1977): their intervals hold what differs between them too. The same seed and
    groups give paired weights, whatever the variance. Raises ValueError for a group in two strata.
    """
    stratum_G = group_strata(group_M, stratum_M)
    groups = stratum_G.size
    weights_BxG = np.random.default_rng(seed).random((draws, groups))
    for members in _pools(stratum_G):
        n = members.size
        wanted = variance * (n * (groups - 1) / (max(n - 1, 1) * groups))
        raised = min(wanted * n / max(n - wanted, 1e-9), MOST)
        drawn_BxG = special.gammaincinv(1 / raised, weights_BxG[:, members])
        weights_BxG[:, members] = drawn_BxG * (n / drawn_BxG.sum(axis=1, keepdims=True))
    return weights_BxG


def _pools(stratum_G: np.ndarray) -> list[np.ndarray]:
    """The groups whose weights are drawn together: strata, the smallest joined until none has fewer than `FEWEST`."""
    pools = sorted((np.flatnonzero(stratum_G == stratum) for stratum in np.unique(stratum_G)), key=len)
    while len(pools) > 1 and len(pools[0]) < FEWEST:
        pools = sorted([np.concatenate(pools[:2]), *pools[2:]], key=len)
    return pools


def weight_variance(groups: int, spent: float, residual_M: np.ndarray, weight_M: np.ndarray, delta: float) -> float:
    """The variance of weights at which 95% intervals hold the truth 95% of the time, found by simulation
    (benchmarks/coverage.py): 1 + c*((t/z)^2 * groups/(groups - spent) - 1), at most `MOST`.

    t and z: 97.5% points of Student's distribution with groups - spent degrees of freedom and of the normal. For least
    squares c = 1: the fit made residuals small by (groups - spent)/groups, and few of them estimate the noise's spread.
    A point beyond `delta` pulls with one known force, however far, and needs no such allowance: c is the share of the
    sum of squared scores that points inside `delta` have.
    """
    freedom = groups - spent
    if freedom < 1:
        return MOST
    score_M = weight_M * np.clip(residual_M, -delta, delta) ** 2
    total = float(score_M.sum())
    share = float(score_M[np.abs(residual_M) <= delta].sum()) / total if total > 0 else 1.0
    student = float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))
    return min(1 + share * (student**2 * groups / freedom - 1), MOST)


def group_strata(group_M: np.ndarray, stratum_M: np.ndarray) -> np.ndarray:
    """The stratum of each group. ValueError for a group in two."""
    stratum_G = np.zeros(int(group_M.max()) + 1, dtype=np.int64)
    stratum_G[group_M] = stratum_M
    if (stratum_G[group_M] != stratum_M).any():
        raise ValueError("stratum: a group has rows in two strata; a stratum must be constant within a group (run)")
    return stratum_G
