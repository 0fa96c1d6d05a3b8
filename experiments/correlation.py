"""Correlations of a proxy with the truth over mixtures, averaged over seeds, with intervals that count both.

Letters: S seeds, M mixtures, B draws, P strata (sets of mixtures whose correlations are averaged).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from experiments.statistics import Interval
from scaling.fields import check
from scaling.fitting.validation import widened

SEEDS, MIXTURES = "seeds", "mixtures"
Pair = tuple[np.ndarray, np.ndarray]  # proxy_SxM and truth_SxM


def correlations(first: np.ndarray, second: np.ndarray, ranks: bool) -> np.ndarray:
    """Pearson's correlation along the last axis, or Spearman's: that of the ranks, ties at their mean. nan where either
    is constant.
    """
    if ranks:
        first, second = (stats.rankdata(values, axis=-1) for values in (first, second))
    first, second = (values - values.mean(axis=-1, keepdims=True) for values in (first, second))
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), scale, out=np.full_like(scale, np.nan), where=scale > 0)


def estimate(strata_P: Sequence[Pair], ranks: bool) -> float:
    """Mean over seeds and strata of the correlation over mixtures."""
    return float(np.mean([correlations(*pair, ranks) for pair in strata_P]))


def draws(strata_P: Sequence[Pair], ranks: bool, count: int, drawn: Sequence[str]) -> np.ndarray:
    """`estimate` with what is `drawn`, SEEDS, MIXTURES or both, drawn again with replacement, [B].

    The same draws for the same shape: those of two proxies may be subtracted. A draw in which a correlation does not
    exist is nan.
    """
    rng = np.random.default_rng(0)
    seeds = len(strata_P[0][0])
    seed_BxS = _indices(rng, count, seeds, SEEDS in drawn)
    total_B = np.zeros(count)
    for proxy_SxM, truth_SxM in strata_P:
        index_BxM = _indices(rng, count, proxy_SxM.shape[1], MIXTURES in drawn)
        found_SxB = correlations(proxy_SxM[:, index_BxM], truth_SxM[:, index_BxM], ranks)
        total_B += found_SxB[seed_BxS, np.arange(count)[:, None]].mean(axis=1)
    return total_B / len(strata_P)


def _indices(rng: np.random.Generator, count: int, size: int, drawn: bool) -> np.ndarray:
    return rng.integers(size, size=(count, size)) if drawn else np.tile(np.arange(size), (count, 1))


def correlation_interval(strata_P: Sequence[Pair], ranks: bool, count: int, level: float) -> Interval:
    """Mean correlation with its interval over seeds and mixtures."""
    return _interval(estimate(strata_P, ranks), lambda drawn: draws(strata_P, ranks, count, drawn), strata_P, level)


def gain_interval(first_P: Sequence[Pair], second_P: Sequence[Pair], count: int, level: float) -> Interval:
    """Rank correlation of one proxy less that of another, of the same seeds and mixtures, with its interval."""
    return _interval(
        estimate(first_P, ranks=True) - estimate(second_P, ranks=True),
        lambda drawn: draws(first_P, True, count, drawn) - draws(second_P, True, count, drawn), first_P, level)


def _interval(
    value: float, draw: Callable[[Sequence[str]], np.ndarray], strata_P: Sequence[Pair], level: float
) -> Interval:
    """Percentiles of draws of seeds and mixtures, widened as for the mean of one more value than there are degrees of
    freedom (Hesterberg 2015, Am. Stat. 69, 371-386), which Satterthwaite's formula gives from the variance that either
    brings alone. ConfigError where more than one draw in a hundred is nan.
    """
    drawn_B = draw((SEEDS, MIXTURES))
    known_B = drawn_B[~np.isnan(drawn_B)]
    check(len(known_B) >= 0.99 * len(drawn_B), "draws without a correlation", len(drawn_B) - len(known_B),
          "at most one in a hundred", "take more mixtures")
    degrees_2 = np.array([len(strata_P[0][0]) - 1, sum(proxy.shape[1] - 1 for proxy, _ in strata_P)])
    variance_2 = np.array([np.nanvar(draw((part,))) for part in (SEEDS, MIXTURES)])
    if variance_2.sum() == 0:
        return Interval(value, value, value)
    freedom = variance_2.sum()**2 / (variance_2**2 / degrees_2).sum()
    low_1, high_1 = widened(known_B[:, None], 1 + int(freedom), level)
    return Interval(value, float(low_1[0]), float(high_1[0]))
