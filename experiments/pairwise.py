"""How sure are we that optimizer A is faster than B? Every pair, by a bootstrap of studies and of workloads.

Letters: S submissions, W workloads, G base workloads with their variants, K studies, B draws.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from experiments.algoperf import SLOWEST, StudyTimes, drawn_times, median
from experiments.statistics import Interval
from scaling.fields import check
from scaling.fitting.result import tails


@dataclasses.dataclass(frozen=True, eq=False)
class Speeds:
    """log of how much faster every submission is than every other, one a workload, and draws of it.

    `log_SxSxW[a, b]`: log(time of b / time of a), medians over studies, within ± log 4; of a failure and a success it
    is ± log 4, as the score counts no more than that, and 0 of two failures. `draws_BxSxSxW`: of resampled studies.
    `group_W`: the place of a workload's base workload; a base and its variants are resampled together.
    """

    submissions: tuple[str, ...]
    log_SxSxW: np.ndarray
    draws_BxSxSxW: np.ndarray
    group_W: np.ndarray


def speeds(times: StudyTimes, draws: int, seed: int) -> Speeds:
    """Pairwise speeds of a ruleset."""
    log_SxSxW = _log_ratios(median(times.seconds_SxWxK))
    draws_BxSxSxW = _log_ratios(median(drawn_times(times, draws, seed)))
    return Speeds(times.submissions, log_SxSxW, draws_BxSxSxW, times.base_W)


def _log_ratios(time_xSxW: np.ndarray) -> np.ndarray:
    """[..., a, b, W]: log(b / a) within ± log 4; 0 where both are inf."""
    with np.errstate(invalid="ignore"):
        ratio = np.log(time_xSxW[..., None, :, :]) - np.log(time_xSxW[..., :, None, :])
    return np.clip(np.nan_to_num(ratio, nan=0.0), -math.log(SLOWEST), math.log(SLOWEST))


def only(found: Speeds, workloads: np.ndarray) -> Speeds:
    """The same on some of the workloads, by a mask."""
    return dataclasses.replace(found, log_SxSxW=found.log_SxSxW[..., workloads],
                               draws_BxSxSxW=found.draws_BxSxSxW[..., workloads], group_W=found.group_W[workloads])


def resampled(found: Speeds, level: float, seed: int) -> np.ndarray:
    """Mean log speed over resampled studies and resampled workloads, [B, S, S], within ± log 4.

    With G groups of workloads, what resampling them adds to a draw is stretched by √(G / (G - 1)) t(level, G - 1) /
    z(level): the percentiles of a plain bootstrap of four groups miss far more often than they say.
    """
    groups, place_W = np.unique(found.group_W, return_inverse=True)
    count, draws = len(groups), len(found.draws_BxSxSxW)
    counts_BxG = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    weight_BxW = counts_BxG[:, place_W].astype(float)
    same_BxSxS = found.draws_BxSxSxW.mean(axis=-1)
    if count == 1:
        return same_BxSxS
    drawn_BxSxS = np.einsum("bw,bijw->bij", weight_BxW / weight_BxW.sum(axis=1, keepdims=True), found.draws_BxSxSxW)
    tail = 1 - tails(level)[0]
    stretch = math.sqrt(count / (count - 1)) * stats.t.ppf(tail, count - 1) / stats.norm.ppf(tail)
    return np.clip(same_BxSxS + stretch * (drawn_BxSxS - same_BxSxS), -math.log(SLOWEST), math.log(SLOWEST))


def speed_up(found: Speeds, first: str, second: str, level: float) -> tuple[Interval, Interval]:
    """How many times as fast the first is as the second, geometric mean over workloads: with the interval of resampled
    studies, for these workloads, and with that of resampled workloads too, for workloads like these.
    """
    a, b = (found.submissions.index(name) for name in (first, second))
    value = float(np.exp(found.log_SxSxW[a, b].mean()))
    ways = found.draws_BxSxSxW.mean(axis=-1), resampled(found, level, seed=1)
    here, like = (Interval(value, *np.exp(np.quantile(draws_BxSxS[:, a, b], tails(level))).tolist())
                  for draws_BxSxS in ways)
    return here, like


def pairs(found: Speeds, level: float) -> pd.DataFrame:
    """Every pair once, the faster first: `first`, `second`, `speed_up` (geometric mean over workloads) with `low` and
    `high`; `here`: the probability that the first is faster on these workloads, over resampled studies; `probability`:
    on workloads like these, over resampled workloads too; a draw without difference counts half. `decided_here` and
    `decided`: the difference exceeds `critical` standard errors, so that all decisions are right together at `level`.
    """
    mean_SxS = found.log_SxSxW.mean(axis=-1)
    ways = found.draws_BxSxSxW.mean(axis=-1), resampled(found, level, seed=1)
    decided_here_SxS, decided_SxS = (_decided(mean_SxS, draws_BxSxS, level) for draws_BxSxS in ways)
    rows = []
    for one, other in itertools.combinations(range(len(found.submissions)), 2):
        a, b = (one, other) if mean_SxS[one, other] >= 0 else (other, one)
        low, high = np.exp(np.quantile(ways[1][:, a, b], tails(level)))
        here, there = (_share_above(draws_BxSxS[:, a, b]) for draws_BxSxS in ways)
        rows.append({"first": found.submissions[a], "second": found.submissions[b],
                     "speed_up": math.exp(mean_SxS[a, b]), "low": low, "high": high, "here": here,
                     "probability": there, "decided_here": bool(decided_here_SxS[a, b]),
                     "decided": bool(decided_SxS[a, b])})
    return pd.DataFrame(rows).sort_values("speed_up", ascending=False, ignore_index=True)


def _decided(mean_SxS: np.ndarray, draws_BxSxS: np.ndarray, level: float) -> np.ndarray:
    """Whether |mean| exceeds c standard errors, c as of `critical` over all pairs; without spread, whether it is not 0.
    """
    return np.abs(mean_SxS) > critical(draws_BxSxS, level) * draws_BxSxS.std(axis=0)


def critical(draws_BxSxS: np.ndarray, level: float) -> float:
    """The `level` quantile over draws of the largest |draw - mean of draws| / standard error of any pair: what a
    difference in standard errors must exceed for all decisions to hold together. Romano & Wolf 2005 (Econometrica 73),
    their single step. 0 where no pair has spread.
    """
    spread_SxS = draws_BxSxS.std(axis=0)
    away_BxSxS = np.abs(draws_BxSxS - draws_BxSxS.mean(axis=0))
    scaled_BxSxS = np.divide(away_BxSxS, spread_SxS, out=np.zeros_like(away_BxSxS), where=spread_SxS > 0)
    return float(np.quantile(scaled_BxSxS.max(axis=(1, 2)), level))


def _share_above(draws_B: np.ndarray) -> float:
    return float(np.mean(draws_B > 0) + 0.5 * np.mean(draws_B == 0))


def halves(times: StudyTimes) -> list[tuple[StudyTimes, StudyTimes]]:
    """Every split of the studies into two halves, each once. Raises ConfigError for an odd number of studies."""
    studies = times.seconds_SxWxK.shape[2]
    check(studies % 2 == 0, "studies", studies, "an even number, for halves", "run one more")
    chosen = [half for half in itertools.combinations(range(studies), studies // 2) if 0 in half]
    return [(_of_studies(times, half), _of_studies(times, sorted(set(range(studies)) - set(half)))) for half in chosen]


def _of_studies(times: StudyTimes, places: Sequence[int]) -> StudyTimes:
    return dataclasses.replace(times, seconds_SxWxK=times.seconds_SxWxK[:, :, np.array(places)])


def _in_order(times: StudyTimes, table: pd.DataFrame) -> np.ndarray:
    """Whether these times put `first` of a pair before `second`, [P]."""
    first_P, second_P = (table[side].map(times.submissions.index).to_numpy(int) for side in ("first", "second"))
    return _log_ratios(median(times.seconds_SxWxK)).mean(axis=-1)[first_P, second_P] > 0


def agreement(times: StudyTimes, decided: pd.DataFrame) -> np.ndarray:
    """Share of pairs (columns first and second) that both halves of the studies put in the order given, one a split;
    nan without pairs.
    """
    if not len(decided):
        return np.full(len(halves(times)), np.nan)
    return np.array([np.mean(_in_order(first, decided) & _in_order(second, decided))
                     for first, second in halves(times)])


def across(times: StudyTimes, draws: int, level: float) -> tuple[int, int]:
    """Pairs that one half of the studies decides on these workloads, and how many of them the other half puts in that
    order; of the first split, both ways.
    """
    first, second = halves(times)[0]
    count = agreed = 0
    for seen, fresh in ((first, second), (second, first)):
        table = pairs(speeds(seen, draws, seed=0), level)
        table = table[table.decided_here]
        count += len(table)
        agreed += int(_in_order(fresh, table).sum())
    return count, agreed
