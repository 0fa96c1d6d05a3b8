"""How well laws predict what they were not fitted to: a value held out at a time, and extrapolation from every cut.

Letters: F folds, L lanes, M rows, H held rows, G groups, B draws, P parameters, K measures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import jax
import numpy as np
import pandas as pd
from scipy import stats

from scaling.fitting import starts
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective, default_objective
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.fitting.result import tails
from scaling.fitting.tables import Holdout, read_points
from scaling.laws.law import Law, TableError, read_column

MEASURES = ("rmse", "relative", "rmse_log", "bias")
_SCREENED = 8


class Reading(TypedDict, total=False):
    """How a table is read: as in `fitting.fit`, with the same defaults."""

    columns: Mapping[str, str] | None
    target: str
    group: str | None
    stratum: str | None
    weights: str | None
    error: str | None


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to fit and rows to predict; `value` is the one held out, or the last one fitted."""

    value: Any
    fitted_M: np.ndarray
    held_M: np.ndarray


def hold_out_each(
    laws: Law | Sequence[Law],
    table: pd.DataFrame,
    by: str,
    *,
    objective: Objective | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    **reading: Unpack[Reading],
) -> pd.DataFrame:
    """Each value of a column (or law input) held out in turn and predicted from all the others: a ratio, a schedule, a
    size. One row a law and value; columns `law`, `held`, and those of `rolling`.

    All folds of a law are fitted together, rows weighted 0 or 1, each from the fit to all rows and from the best 8 of
    1024 screened starts. Raises TableError as `fit` does, for fewer than two values, and where no fold can be fitted.
    """
    value_M = _values(table, by, reading)
    values = pd.unique(value_M)
    if len(values) < 2:
        raise TableError(f"column {by!r}: one value ({values[0]}), at least two needed to hold one out; choose another")
    folds = [Fold(value, value_M != value, value_M == value) for value in sorted(values)]
    return _errors(laws, table, "held", folds, objective, bootstrap, seed, level, reading)


def rolling(
    laws: Law | Sequence[Law],
    table: pd.DataFrame,
    by: str,
    *,
    ahead: int | None = None,
    cuts: Iterable[float] | None = None,
    objective: Objective | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    **reading: Unpack[Reading],
) -> pd.DataFrame:
    """Rolling extrapolation along a column (or law input) such as N or compute: all rows up to a cut are fitted, and
    the next `ahead` values predicted (all larger ones by default). `cuts`: every value but the last by default.

    One row a law and cut: `law`, `cut`, `rows_fitted`, `rows_held`, `groups_held`, and with ends `_low`, `_high`:
    `rmse`, `relative` (mean |error|/|target|), `rmse_log` (of log prediction - log target; nan where either is not
    positive), `bias` (mean prediction - target). Intervals resample held out groups, the fit as it is (`widened` for
    few groups, Hesterberg 2015, Am. Stat. 69, 371-386); nan with one group. Under normal errors 95% ones of `bias` hold
    the truth in 94% to 95%, those of `rmse` in 87% to 93%, since squares are skewed. A run on both sides of a cut is
    judged beside its own noise. A fold that the law cannot be fitted to has nan errors and the reason in `skipped`.
    ValueError for `ahead` < 1; raises else as `hold_out_each`.
    """
    if ahead is not None and ahead < 1:
        raise ValueError(f"ahead: {ahead} must be >= 1: how many of the next values to predict, None for all")
    column = (reading.get("columns") or {}).get(by, by)
    value_M = read_column(table, column, "the column that by= names")
    values = np.unique(value_M)
    folds = []
    for cut in values[:-1] if cuts is None else sorted(cuts):
        later = values[values > cut]
        if not later.size:
            raise TableError(f"cuts: no row lies beyond {cut:g}; the largest value of {by!r} is {values[-1]:g}")
        last = later[-1 if ahead is None else min(ahead, later.size) - 1]
        folds.append(Fold(cut, value_M <= cut, (value_M > cut) & (value_M <= last)))
    if not folds:
        raise TableError(f"column {by!r}: one value ({values[0]:g}), at least two needed to extrapolate along it")
    return _errors(laws, table, "cut", folds, objective, bootstrap, seed, level, reading)


def read(
    table: pd.DataFrame, law: Law, objective: Objective | None, reading: Reading, holdout: Holdout = None
) -> tuple[Objective, Points]:
    """The objective (the law's default if None), and the points of a table, with the defaults of `fitting.fit`."""
    objective = objective or default_objective(law, known_errors=reading.get("error") is not None)
    points = read_points(
        table,
        law,
        objective,
        columns=reading.get("columns"),
        target=reading.get("target", "loss"),
        group=reading.get("group", "run_id"),
        stratum=reading.get("stratum"),
        weights=reading.get("weights"),
        error=reading.get("error"),
        holdout=holdout,
    )
    return objective, points


def fit_folds(problem: Problem, folds: Sequence[Fold], seed: int) -> np.ndarray:
    """Parameters [F, P] of the fit to each fold's rows."""
    weights_FxM = np.array([fold.fitted_M for fold in folds], dtype=np.float64)
    whole_P = problem.solve(seed).u_P
    lanes, start = [], []
    for f, weight_M in enumerate(weights_FxM):
        with jax.enable_x64(True):
            full_M = problem.weights(weight_M[None])[0]
            screened_SxP = starts.screened(problem.law, problem.objective, problem.data, full_M, seed, keep=_SCREENED)
        start += [whole_P, *screened_SxP]
        lanes += [f] * (1 + len(screened_SxP))
    lane_L = np.array(lanes)
    u_LxP, value_L = problem.minimise(np.stack(start), weights_FxM[lane_L], steps=300, tolerance=1e-12)
    best = [min(np.flatnonzero(lane_L == f), key=lambda lane: value_L[lane]) for f in range(len(folds))]
    return problem.natural(u_LxP[best])


def group_sums(rows_HxK: np.ndarray, group_H: np.ndarray) -> np.ndarray:
    """Sums of rows by group, [G, K]."""
    codes_H = np.unique(group_H, return_inverse=True)[1]
    sums_GxK = np.zeros((codes_H.max() + 1, rows_HxK.shape[1]))
    np.add.at(sums_GxK, codes_H, rows_HxK)
    return sums_GxK


def widened(draws_BxK: np.ndarray, groups: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of draws that resampled so few groups; nan with one group.

    Percentiles with tails Phi(-sqrt(G/(G-1)) t), t the quantile with G - 1 degrees of freedom (Hesterberg 2015). They
    stay between the groups' extremes, which hold a median in 1 - 2^(1-G): where that is below the level (5 groups and
    fewer at 95%), mean -+ sqrt(G/(G-1)) t sd of the draws, which for a mean of groups is Student's interval.
    """
    low, _ = tails(level)
    if groups < 2:
        return (np.full(draws_BxK.shape[1], math.nan),) * 2
    reach = math.sqrt(groups / (groups - 1)) * stats.t.ppf(low, groups - 1)
    if 2.0 ** (1 - groups) > 1 - level:
        with np.errstate(invalid="ignore"):  # an infinite draw leaves no interval
            mean_K, half_K = draws_BxK.mean(axis=0), -reach * draws_BxK.std(axis=0)
        return mean_K - half_K, mean_K + half_K
    tail = stats.norm.cdf(reach)
    return np.quantile(draws_BxK, tail, axis=0), np.quantile(draws_BxK, 1 - tail, axis=0)


def _values(table: pd.DataFrame, by: str, reading: Reading) -> np.ndarray:
    column = (reading.get("columns") or {}).get(by, by)
    if column not in table:
        raise TableError(f"column {column!r} (by=) is missing; the table has {', '.join(map(str, table))}")
    if (missing_M := table[column].isna().to_numpy()).any():
        raise TableError(f"column {column!r} (by=), row {table.index[int(np.argmax(missing_M))]}: missing value")
    return table[column].to_numpy()


def _errors(
    laws: Law | Sequence[Law],
    table: pd.DataFrame,
    name: str,
    folds: Sequence[Fold],
    objective: Objective | None,
    bootstrap: int,
    seed: int,
    level: float,
    reading: Reading,
) -> pd.DataFrame:
    """Errors of every law on every fold."""
    rows = []
    for law in [laws] if isinstance(laws, Law) else laws:
        chosen, points = read(table, law, objective, reading)
        skipped = {fold: _reason(law, points, fold) for fold in folds}
        fitted = [fold for fold in folds if not skipped[fold]]
        prediction: dict[Fold, np.ndarray] = {}
        if fitted:
            parameters_FxP = fit_folds(Problem(law, chosen, points), fitted, seed)
            prediction = dict(zip(fitted, at_each(law, parameters_FxP, points.inputs), strict=True))
        for fold in folds:
            row = {"law": law.name, name: fold.value, "rows_fitted": int(fold.fitted_M.sum())}
            row |= {"rows_held": int(fold.held_M.sum()), "groups_held": np.unique(points.group_M[fold.held_M]).size}
            if fold in prediction:
                row |= measured(prediction[fold][fold.held_M], points.at(fold.held_M), bootstrap, seed, level)
            rows.append({**row, "skipped": skipped[fold]})
    result = pd.DataFrame(rows)
    if (result["skipped"] != "").all():
        raise TableError(f"no fold can be fitted; the first: {result['skipped'].iloc[0]}")
    skips = result.pop("skipped")
    return result.assign(skipped=skips)


def _reason(law: Law, points: Points, fold: Fold) -> str:
    try:
        law.check_design(points.at(fold.fitted_M).inputs)
    except TableError as error:
        return str(error)
    return ""


def measured(prediction_H: np.ndarray, held: Points, bootstrap: int, seed: int, level: float) -> dict[str, float]:
    """Every measure of held out rows with its interval: `rmse`, `rmse_low`, `rmse_high`, ..."""
    error_H, target_H = prediction_H - held.target_M, held.target_M
    with np.errstate(divide="ignore", invalid="ignore"):
        log_H = np.where((prediction_H > 0) & (target_H > 0), np.log(prediction_H / target_H), np.nan)
        relative_H = np.abs(error_H) / np.where(target_H == 0, np.nan, np.abs(target_H))
    rows_HxK = np.stack([error_H**2, relative_H, log_H**2, error_H, np.ones_like(error_H)], axis=1)
    sums_GxK = group_sums(rows_HxK, held.group_M)
    groups = len(sums_GxK)
    rng = np.random.default_rng(seed)
    counts_BxG = np.concatenate([np.ones((1, groups)), rng.multinomial(groups, np.ones(groups) / groups, bootstrap)])
    totals_BxK = counts_BxG @ sums_GxK
    means_BxK = totals_BxK[:, :-1] / totals_BxK[:, -1:]
    means_BxK[:, [0, 2]] = np.sqrt(means_BxK[:, [0, 2]])
    low_K, high_K = widened(means_BxK[1:], groups if bootstrap else 1, level)
    low_K = np.where(np.array(MEASURES) == "bias", low_K, np.maximum(low_K, 0.0))
    result: dict[str, Any] = {}
    for k, measure in enumerate(MEASURES):
        result |= {measure: means_BxK[0, k], f"{measure}_low": low_K[k], f"{measure}_high": high_K[k]}
    return {name: float(value) for name, value in result.items()}
