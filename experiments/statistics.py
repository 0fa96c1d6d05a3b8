"""Means and their intervals, for claims: of many values, of few, of pairs, of values that share a group.

Letters: M values, G groups, B draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from scaling.fields import check
from scaling.fitting.result import tails
from scaling.fitting.validation import group_sums, widened

_DRAWS = 4000


class Interval(NamedTuple):
    """An estimate and the two ends of its interval, in the unit of the values; nan where there is none."""

    value: float
    low: float
    high: float


def mean_interval(values: ArrayLike, level: float) -> Interval:
    """Mean of independent values and its bootstrap percentile interval.

    Too narrow by about sqrt(1 - 1/M) for few values: below ten, use `t_interval`. ConfigError for no values, or one
    that is not finite.
    """
    values_M = _finite(values)
    draws_B = np.random.default_rng(0).choice(values_M, (_DRAWS, len(values_M))).mean(axis=1)
    low, high = np.quantile(draws_B, tails(level)).tolist()
    return Interval(float(values_M.mean()), low, high)


def t_interval(values: ArrayLike, level: float) -> Interval:
    """mean ± t_(M-1) s/sqrt(M): the mean of few independent values, near normal, such as one a seed.

    The ends are nan for a single value. ConfigError for no values, or one that is not finite.
    """
    values_M = _finite(values)
    mean, count = float(values_M.mean()), len(values_M)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(tails(level)[1], count - 1) * values_M.std(ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def paired_interval(first: ArrayLike, second: ArrayLike, level: float) -> Interval:
    """`t_interval` of first - second, pair by pair: two treatments of the same seeds, whose common part cancels.

    ConfigError for different lengths, no values, or one that is not finite.
    """
    first_M, second_M = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    check(first_M.shape == second_M.shape, "pairs", (len(first_M), len(second_M)), "as many first as second values",
          "drop the values that have no partner")
    return t_interval(first_M - second_M, level)


def grouped_mean_interval(values: ArrayLike, group: ArrayLike, level: float) -> Interval:
    """Mean of values that share groups (points of a run, runs of a trunk), by a bootstrap that draws whole groups.

    The interval is `scaling.fitting.validation.widened` for few groups; the ends are nan for one.
    ConfigError for no values, one that is not finite, or groups that are not one a value.
    """
    values_M, group_M = _finite(values), np.asarray(group)
    check(len(values_M) == len(group_M), "group", len(group_M), f"one a value, {len(values_M)}", "name every group")
    sums_Gx2 = group_sums(np.stack([values_M, np.ones_like(values_M)], axis=1), group_M)
    groups = len(sums_Gx2)
    counts_BxG = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), _DRAWS)
    totals_Bx2 = counts_BxG @ sums_Gx2
    low_1, high_1 = widened(totals_Bx2[:, :1] / totals_Bx2[:, 1:], groups, level)
    return Interval(float(values_M.mean()), float(low_1[0]), float(high_1[0]))


def _finite(values: ArrayLike) -> np.ndarray:
    values_M = np.asarray(values, dtype=np.float64)
    good = values_M.ndim == 1 and len(values_M) > 0 and np.isfinite(values_M).all()
    check(bool(good), "values", values_M.tolist(), "one or more finite values",
          "leave out what has no value, and say so where it is counted")
    return values_M
