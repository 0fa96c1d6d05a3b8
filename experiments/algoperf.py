"""AlgoPerf's score of training algorithms: how often, over workloads, one is not much slower than the fastest.

Letters: S submissions, W workloads, K studies, T factors tau, B draws.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

SLOWEST = 4.0
_FACTORS = 100
_COLUMNS = ("submission", "workload", "role", "study", "trial", "reached", "time_to_target_s", "eval_index_at_target")


@dataclass(frozen=True, eq=False)
class StudyTimes:
    """Seconds to the target, [S, W, K]: inf where no trial of the study reached it, nan where the study was not run.

    `base_W`: the place of the base workload of each workload, its own for a base workload.
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    base_W: np.ndarray
    seconds_SxWxK: np.ndarray


def study_times(trials: pd.DataFrame) -> StudyTimes:
    """Times of every study from a tidy table of trials, one row a trial, of one version and ruleset.

    Of a study's trials the one that reaches the target at the smallest evaluation number (`eval_index_at_target`)
    counts, the first if two tie, as in the benchmark's own code; it is not always the one of smallest time. `role` is
    base or held_out: a variant of the base workload whose name begins its own. Rows of another role are dropped.

    Raises ValueError for a missing column, an empty table, and a variant without its base.
    """
    if missing := [column for column in _COLUMNS if column not in trials]:
        raise ValueError(f"trials: column {missing[0]!r} is missing; needed: {', '.join(_COLUMNS)}")
    trials = trials[trials["role"].isin(["base", "held_out"])]
    if not len(trials):
        raise ValueError("trials: no row of role 'base' or 'held_out'; name the role of each workload")
    submissions, workloads, studies = (sorted(trials[name].unique()) for name in ("submission", "workload", "study"))
    bases = sorted(trials.loc[trials["role"] == "base", "workload"].unique())
    base_W = np.array([workloads.index(_base(workload, bases)) for workload in workloads])
    reached = trials.assign(index=trials["eval_index_at_target"].where(trials["reached"] == 1, np.inf))
    first = reached.sort_values(["index", "trial"]).drop_duplicates(["submission", "workload", "study"])
    seconds_SxWxK = np.full((len(submissions), len(workloads), len(studies)), np.nan)
    place = [
        first[name].map({label: i for i, label in enumerate(labels)}).to_numpy()
        for name, labels in (("submission", submissions), ("workload", workloads), ("study", studies))
    ]
    seconds_SxWxK[tuple(place)] = np.where(first["reached"] == 1, first["time_to_target_s"], np.inf)
    return StudyTimes(tuple(submissions), tuple(workloads), base_W, seconds_SxWxK)


def _base(workload: str, bases: list[str]) -> str:
    found = [base for base in bases if workload == base or workload.startswith(f"{base}_")]
    if not found:
        raise ValueError(f"workload {workload!r}: no base workload begins its name; the bases are {', '.join(bases)}")
    return max(found, key=len)


def scores(times: StudyTimes) -> np.ndarray:
    """Score of each submission, [S]."""
    return integrated(counted(times, times.seconds_SxWxK))


def score_draws(times: StudyTimes, draws: int, seed: int) -> np.ndarray:
    """Scores of bootstrap draws, [B, S]: studies drawn with replacement within each submission and workload."""
    return integrated(counted(times, drawn_times(times, draws, seed)))


def drawn_times(times: StudyTimes, draws: int, seed: int) -> np.ndarray:
    """Seconds of bootstrap draws, [B, S, W, K]: those of as many studies as were run, nan beside them."""
    rng = np.random.default_rng(seed)
    seconds_SxWxK = times.seconds_SxWxK
    run_SxWxK = ~np.isnan(seconds_SxWxK)
    count_SxWx1 = np.maximum(run_SxWxK.sum(axis=2, keepdims=True), 1)
    order_SxWxK = np.argsort(~run_SxWxK, axis=2, kind="stable")  # the studies that were run come first
    seconds_SxWxK = np.take_along_axis(seconds_SxWxK, order_SxWxK, axis=2)
    drawn_BxSxWxK = (rng.random((draws, *seconds_SxWxK.shape)) * count_SxWx1).astype(int)
    taken_BxSxWxK = np.take_along_axis(seconds_SxWxK[None], drawn_BxSxWxK, axis=3)
    keep_SxWxK = np.arange(seconds_SxWxK.shape[2]) < count_SxWx1
    return np.where(keep_SxWxK, taken_BxSxWxK, np.nan)


def counted(times: StudyTimes, seconds_xSxWxK: np.ndarray) -> np.ndarray:
    """What is scored: ratios to the fastest on the base workloads alone, [..., S, base workloads].

    Medians over studies, `relative`, and inf where a variant of the workload is inf.
    """
    ratio_xSxW = relative(median(seconds_xSxWxK))
    failed_xSxW = np.isinf(ratio_xSxW)
    for variant, base in enumerate(times.base_W):
        if variant != base:
            failed_xSxW[..., base] |= failed_xSxW[..., variant]
    return np.where(failed_xSxW, np.inf, ratio_xSxW)[..., np.unique(times.base_W)]


def median(seconds_xK: np.ndarray) -> np.ndarray:
    """Median over the studies that were run; inf between two of which one is inf, and where none was run."""
    filled_xK = np.sort(np.where(np.isnan(seconds_xK), np.inf, seconds_xK), axis=-1)
    count_x1 = (~np.isnan(seconds_xK)).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(filled_xK, np.maximum(k, 0), axis=-1) for k in ((count_x1 - 1) // 2, count_x1 // 2))
    return np.where(count_x1 > 0, (low + high) / 2, np.inf)[..., 0]


def relative(seconds_xSxW: np.ndarray) -> np.ndarray:
    """Times as multiples of the fastest submission's; inf beyond 4, and where none reaches the target."""
    fastest_xW = seconds_xSxW.min(axis=-2, keepdims=True)
    solved_xW = np.isfinite(fastest_xW)
    ratio_xSxW = np.where(solved_xW, seconds_xSxW / np.where(solved_xW, fastest_xW, 1.0), np.inf)
    return np.where(ratio_xSxW > SLOWEST, np.inf, ratio_xSxW)


def performance_profile(ratio_xSxW: np.ndarray, factor_T: np.ndarray) -> np.ndarray:
    """Share of workloads on which each submission takes at most tau times the fastest's time, [..., S, T]."""
    return (ratio_xSxW[..., None, :] <= factor_T[:, None]).mean(axis=-1)


def integrated(ratio_xSxW: np.ndarray) -> np.ndarray:
    """The score of Dahl et al. 2023 (arXiv 2306.07179): the profile's mean over tau in [1, 4].

    By the trapezoid rule on 100 values, as in the benchmark's code; its limit is the mean of max(0, (4 - ratio)/3).
    """
    factor_T = np.linspace(1.0, SLOWEST, _FACTORS)
    return np.trapezoid(performance_profile(ratio_xSxW, factor_T), factor_T, axis=-1) / (SLOWEST - 1)
