"""Resampling whole groups: the points of one run share its noise, so a run is drawn or left out as one.

Letters: B draws, G groups, M points, V distinct values.
"""

from collections.abc import Mapping

import numpy as np


def group_counts(
    group_M: np.ndarray, stratum_M: np.ndarray, inputs: Mapping[str, np.ndarray], needed: int, draws: int, seed: int
) -> np.ndarray:
    """How often each draw takes each group, [B, G]: with replacement, within strata, as many as there are.

    Draws that leave fewer than `needed` distinct points, or a single value of an input, are drawn again: no law could
    be fitted to them. Raises ValueError for a group in two strata, and where hardly any draw can be fitted.
    """
    groups = int(group_M.max()) + 1
    stratum_G = np.zeros(groups, dtype=np.int64)
    stratum_G[group_M] = stratum_M
    if (stratum_G[group_M] != stratum_M).any():
        raise ValueError("stratum: a group has rows in two strata; a stratum must be constant within a group (run)")
    rows = np.unique(np.stack([*inputs.values()], axis=1), axis=0, return_inverse=True)[1].ravel()
    columns = [(rows, needed)] + [(np.unique(x_M, return_inverse=True)[1], 2) for x_M in inputs.values()]
    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    for _ in range(100):
        counts_BxG = _draw(rng, stratum_G, draws)
        good_B = np.ones(draws, dtype=bool)
        for value_M, least in columns:
            has_GxV = np.zeros((groups, int(value_M.max()) + 1))
            has_GxV[group_M, value_M] = 1
            good_B &= ((counts_BxG > 0) @ has_GxV > 0).sum(axis=1) >= least
        kept.extend(counts_BxG[good_B])
        if len(kept) >= draws:
            return np.stack(kept[:draws])
    raise ValueError(
        f"bootstrap: nearly every resample of the {groups} groups leaves fewer than {needed} distinct points or one"
        " value of an input;"
        " add runs, give a stratum that keeps every value in, or pass bootstrap=0"
    )


def _draw(rng: np.random.Generator, stratum_G: np.ndarray, draws: int) -> np.ndarray:
    counts_BxG = np.zeros((draws, stratum_G.size), dtype=np.int64)
    for stratum in np.unique(stratum_G):
        members = np.flatnonzero(stratum_G == stratum)
        counts_BxG[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), size=draws)
    return counts_BxG
