"""Which mixtures to train: random ones as RegMix draws them, and the lattice of the simplex.

Letters: M mixtures, K domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from scaling.fields import check

Shares = dict[str, float]
_SMALLEST = 5000  # shares are multiples of 1/5000, as in RegMix
_STRENGTHS = 15
_MOST_TIMES_PRIOR = 15.0


def rounded(shares: Mapping[str, float], divisions: int) -> Shares:
    """The nearest mixture of multiples of 1/divisions, by largest remainders: it sums to 1 again."""
    wanted_K = np.array(list(shares.values())) * divisions / sum(shares.values())
    count_K = np.floor(wanted_K + 1e-9).astype(int)
    short = divisions - int(count_K.sum())
    count_K[np.argsort(count_K - wanted_K, kind="stable")[:short]] += 1
    return {domain: int(count) / divisions for domain, count in zip(shares, count_K, strict=True)}


def lattice(domains: Sequence[str], divisions: int) -> list[Shares]:
    """Every mixture of multiples of 1/divisions, the single domains among them: C(divisions + K - 1, K - 1)."""
    check(divisions >= 1, "divisions", divisions, "1 or more", "use a multiple of the number of domains, such as 9")
    counts = itertools.product(range(divisions + 1), repeat=len(domains) - 1)
    rows = [(*row, divisions - sum(row)) for row in counts if sum(row) <= divisions]
    return [{d: count / divisions for d, count in zip(domains, row, strict=True)} for row in rows]


def dirichlet(prior: Mapping[str, float], count: int, strengths: tuple[float, float], seed: int) -> np.ndarray:
    """Random mixtures as RegMix draws them (Liu et al. 2024, arXiv 2407.01492), [M, K].

    Dirichlet of concentration strength*prior^0.5/sum(prior^0.5), strengths log-spaced in 15 steps; a share above 15
    times its prior is drawn again. RegMix draws 100 times too many and keeps a part, each of a random strength; here
    the strengths take turns. Its strengths, 0.1 to 5, would give few but single domains where there are three.
    """
    prior_K = np.array(list(prior.values()), dtype=np.float64)
    check(bool((prior_K > 0).all()), "prior", dict(prior), "a share above 0 for each domain", "drop the domain")
    check(0 < strengths[0] <= strengths[1], "strengths", strengths, "0 < lowest <= highest", "use (1.0, 10.0)")
    most_K = np.minimum(_MOST_TIMES_PRIOR * prior_K / prior_K.sum(), 1.0)
    base_K = np.sqrt(prior_K) / np.sqrt(prior_K).sum()
    strength_M = np.resize(np.geomspace(*strengths, _STRENGTHS), count)
    rng = np.random.default_rng(seed)
    share_MxK = np.full((count, len(prior_K)), np.inf)
    while (again_M := (share_MxK > most_K).any(axis=1)).any():
        # A Dirichlet draw is one of gammas over their sum, so that every row may have its own concentration.
        gamma_MxK = rng.gamma(strength_M[again_M, None] * base_K)
        total_Mx1 = gamma_MxK.sum(axis=1, keepdims=True)
        share_MxK[again_M] = np.where(total_Mx1 > 0, gamma_MxK / np.maximum(total_Mx1, 1e-300), np.inf)
    return share_MxK


def random_mixtures(
    prior: Mapping[str, float], count: int, strengths: tuple[float, float], seed: int
) -> list[Shares]:
    """Draws of `dirichlet`, rounded to multiples of 1/5000."""
    draws_MxK = dirichlet(prior, count, strengths, seed)
    return [rounded(dict(zip(prior, map(float, row), strict=True)), _SMALLEST) for row in draws_MxK]
