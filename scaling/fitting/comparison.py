"""Laws compared on the same rows: by the error on rows that they did not see, and by information criteria.

Letters: L laws, M rows, H held rows, G groups, B draws, R refits, P parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Unpack

import numpy as np
import pandas as pd

from scaling.fitting.estimate import fit_points
from scaling.fitting.evaluate import at_each
from scaling.fitting.information import Information, effective, information
from scaling.fitting.objectives import Objective, default_objective, huber, least_squares
from scaling.fitting.points import Points
from scaling.fitting.result import Fit
from scaling.fitting.tables import Holdout
from scaling.fitting.validation import Reading, group_sums, read, widened
from scaling.laws.catalogue import FAMILIES, LAWS
from scaling.laws.law import Law, TableError, read_column

Measure = Literal["held out error", "AICc"]
_DRAWS = 4000
_LOSSES = ("nats", "loss", "error")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Laws in order, the best first.

    `table`, one row a law: `law`, `parameters`, `held_rmse` (nan without held out rows) and `fitted_rmse`, both on the
    objective's scale (of log loss: a relative error), the criteria `aic`, `aicc`, `bic`, `tic`, then `difference` to
    the best law by `measure`, its interval `low`, `high`, whether it is `resolved` (the interval leaves out 0), and the
    kinds of `refusals` of the fit. Intervals hold for all rivals of the best together at `level` (Bonferroni).
    `winner`: the best law where its difference to every rival is resolved, else None. `left_out`: reason by law.
    """

    measure: Measure
    level: float
    table: pd.DataFrame
    fits: dict[str, Fit]
    independent: float
    groups: int
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def winner(self) -> str | None:
        """The law that is better than every other beyond the interval of the difference."""
        rivals = self.table.iloc[1:]
        return str(self.table["law"].iloc[0]) if len(rivals) and rivals["resolved"].all() else None

    def summary(self) -> str:
        """Who wins, by how much, and whether that is resolved."""
        held = self.measure == "held out error"
        of = f"{self.groups} held out groups" if held else f"{self.groups} groups, {self.independent:.1f} independent"
        best = self.table["law"].iloc[0]
        if len(self.table) == 1:
            head = f"{best} alone: nothing to compare it with"
        elif self.winner:
            head = f"{best} wins by {self.measure} ({of})"
        else:
            rivals = self.table.iloc[1:]
            equal = ", ".join(rivals["law"][~rivals["resolved"]])
            head = f"not resolved by {self.measure} ({of}): {best} is first, but may be no better than {equal}"
        lines = [head]
        for row in self.table.to_dict("records"):
            size = f"held out rmse {row['held_rmse']:.4g}" if held else f"AICc {row['aicc']:.4g}"
            line = f"  {row['law']} ({row['parameters']} parameters): {size}, fitted rmse {row['fitted_rmse']:.4g}"
            if row["law"] != best:
                line += f"; worse by {row['difference']:.3g}, {self.level:.0%} [{row['low']:.3g}, {row['high']:.3g}]"
            lines.append(line + (f"; refused: {row['refusals']}" if row["refusals"] else ""))
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out)} laws, for the reasons in left_out")
        return "\n".join(lines)


def compare(
    laws: Sequence[Law],
    table: pd.DataFrame,
    *,
    holdout: Holdout = None,
    objective: Objective | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.95,
    **reading: Unpack[Reading],
) -> Comparison:
    """Fits every law to the same rows and compares them, by the error on the rows of `holdout` if given, else by AICc.

    Held out: the difference of root mean squares on the objective's scale. Its draws resample the held out groups, and
    the fitted groups through the fits' `bootstrap` draws, paired across laws; the refits' mean shift (their own noise)
    is taken off, and the interval `validation.widened` for few groups. One held out group resolves
    nothing.

    AICc: of `information.information`, with one number of independent observations for all, that of the law of least
    objective; the interval resamples groups' contributions to the log likelihood (Vuong 1989, Econometrica 57,
    307-333), which resolves no nested pair by chance alone.

    Laws may have different inputs, all of which the table needs. Raises TableError as `fit` does, and ValueError for
    two laws of one name, and for laws whose default objectives differ (pass one).
    """
    names = [law.name for law in laws]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"laws: {names} must be one or more laws of different names")
    chosen = {objective or default_objective(law, known_errors=reading.get("error") is not None) for law in laws}
    if len(chosen) > 1:
        raise ValueError(f"objective: the laws' defaults differ ({', '.join(sorted(map(str, chosen)))}); pass one")
    one = chosen.pop()
    points = [read(table, law, one, reading, holdout)[1] for law in laws]
    fits = {
        law.name: fit_points(law, one, own, bootstrap=bootstrap, seed=seed)
        for law, own in zip(laws, points, strict=True)
    }
    return _compared(fits, seed, level)


def rank_all(
    table: pd.DataFrame,
    *,
    holdout: Holdout = None,
    objective: Objective | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.95,
    **reading: Unpack[Reading],
) -> Comparison:
    """Compares every law of a loss in the catalogue that the table can be fitted with; the others are in `left_out`
    with reasons.

    `objective`: by default `huber(1e-3)` on log loss, or least squares on the loss where it is not positive everywhere;
    laws that are written for the other scale are left out. Raises TableError where no law is left.
    """
    target_M = read_column(table, reading.get("target", "loss"), "the target; name it with target=")
    if objective is None:
        objective = huber() if (target_M > 0).all() else least_squares()
        if reading.get("error") is not None:
            objective = huber(1.345, objective.scale)
    fits: dict[str, Fit] = {}
    left_out: dict[str, str] = {}
    for law in LAWS.values():
        if reason := _unsuitable(law, table, objective, reading):
            left_out[law.name] = reason
            continue
        known = {name: column for name, column in (reading.get("columns") or {}).items() if name in law.input_names}
        try:
            own = read(table, law, objective, {**reading, "columns": known}, holdout)[1]
            fits[law.name] = fit_points(law, objective, own, bootstrap=bootstrap, seed=seed)
        except (TableError, FloatingPointError) as error:
            left_out[law.name] = str(error)
    for family in FAMILIES.values():
        left_out[family.name] = f"a family; make a member of it ({', '.join(family.arguments)}) and pass it to compare"
    if not fits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TableError(f"table: no law of the catalogue can be fitted. {reasons}")
    return replace(_compared(fits, seed, level), left_out=left_out)


def _unsuitable(law: Law, table: pd.DataFrame, objective: Objective, reading: Reading) -> str:
    columns = reading.get("columns") or {}
    if missing := [i.name for i in law.inputs if columns.get(i.name, i.name) not in table]:
        return f"no column for {', '.join(missing)}"
    if not law.target.startswith(_LOSSES):
        return f"its target is no loss but: {law.target}; pass it to compare"
    if law.scale != objective.scale:
        return f"its target ({law.target}) is fitted on the {law.scale} scale, the objective is on {objective.scale}"
    return ""


def _compared(fits: dict[str, Fit], seed: int, level: float) -> Comparison:
    """The comparison of fits to the same rows, whose bootstrap draws are paired: one seed, the same groups."""
    points = next(iter(fits.values())).points
    measure: Measure = "held out error" if points.held_M.any() else "AICc"
    independent = effective(min(fits.values(), key=lambda fit: fit.value))
    about = {name: information(fit, independent) for name, fit in fits.items()}
    if measure == "AICc":
        groups = points.fitted.groups
        score_LxB = _criterion_draws(list(about.values()), float(points.fitted.weight_M.sum()), seed)
    else:
        groups = points.held.groups
        score_LxB = _held_draws(fits, seed)
    tail = 1 - (1 - level) / max(len(fits) - 1, 1)
    order = np.argsort(score_LxB[:, 0], kind="stable")
    rows = []
    for place in order:
        name, fit = list(fits.items())[place]
        row = {"law": name, "parameters": len(fit.parameters), "fitted_rmse": _rmse(fit)}
        row["held_rmse"] = math.nan if measure == "AICc" else score_LxB[place, 0]
        row |= {key: getattr(about[name], key) for key in ("aic", "aicc", "bic", "tic")}
        row |= {"difference": 0.0, "low": math.nan, "high": math.nan, "resolved": False}
        if place != order[0]:
            row |= _difference(score_LxB[place], score_LxB[order[0]], groups, tail)
        rows.append({**row, "refusals": ", ".join(sorted({refusal.kind for refusal in fit.refusals}))})
    ordered = {row["law"]: fits[row["law"]] for row in rows}
    return Comparison(measure, level, pd.DataFrame(rows), ordered, independent, groups)


def _criterion_draws(about: Sequence[Information], weight: float, seed: int) -> np.ndarray:
    """AICc of each law, [L, 1 + B]: the estimate, then draws of groups with their contributions to the likelihood."""
    likelihood_LxG = np.stack([each.log_likelihood_G for each in about])
    groups = likelihood_LxG.shape[1]
    drawn_BxG = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), _DRAWS)
    change_BxG = np.concatenate([np.zeros((1, groups)), drawn_BxG - 1.0])
    deviance_LxB = -2 * about[0].independent / weight * likelihood_LxG @ change_BxG.T
    return deviance_LxB + np.array([[each.aicc] for each in about])


def _difference(score_B: np.ndarray, best_B: np.ndarray, groups: int, level: float) -> dict[str, float | bool]:
    """Score less the best's, the estimate in front of its draws; an infinite score is worse without an interval."""
    if not np.isfinite(score_B[0]):
        better = bool(np.isfinite(best_B[0]))
        return {"difference": math.inf if better else math.nan, "low": math.nan, "high": math.nan, "resolved": better}
    difference_B = score_B - best_B
    low, high = (float(end[0]) for end in widened(difference_B[1:, None], groups, level))
    return {"difference": float(difference_B[0]), "low": low, "high": high, "resolved": bool(low > 0)}


def _rmse(fit: Fit) -> float:
    """Root mean square of the fitted rows' residuals on the objective's scale."""
    fitted = fit.points.fitted
    return float(np.sqrt(np.mean(_errors(fit, fitted, np.array([list(fit.parameters.values())])) ** 2)))


def _errors(fit: Fit, points: Points, parameters_RxP: np.ndarray) -> np.ndarray:
    """Errors on the objective's scale, [R, M]; infinite where the prediction has no place on it."""
    prediction_RxM = at_each(fit.law, parameters_RxP, points.inputs)
    if fit.objective.scale == "raw":
        return np.where(np.isfinite(prediction_RxM), prediction_RxM - points.target_M, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        error_RxM = np.log(prediction_RxM) - np.log(points.target_M)
    return np.where(np.isfinite(error_RxM), error_RxM, np.inf)


def _held_draws(fits: dict[str, Fit], seed: int) -> np.ndarray:
    """Held out root mean square of each law, [L, 1 + B]: the estimate, then draws of held groups and refits."""
    held = next(iter(fits.values())).points.held
    sums = []
    for fit in fits.values():
        parameters_RxP = np.concatenate([[list(fit.parameters.values())], fit.draws_BxP])
        sums.append(group_sums(_errors(fit, fit.points.held, parameters_RxP).T ** 2, held.group_M).T)
    sums_LxRxG = np.stack(sums)
    finite = np.flatnonzero(np.isfinite(sums_LxRxG[:, 1:]).all(axis=(0, 2))) + 1
    refits = finite if finite.size else np.zeros(1, dtype=np.int64)
    size_G = np.bincount(held.group_M)
    whole_LxR = np.sqrt(sums_LxRxG.sum(axis=2) / size_G.sum())
    shift_L = whole_LxR[:, refits].mean(axis=1) - whole_LxR[:, 0]
    rng = np.random.default_rng(seed)
    counts_BxG = rng.multinomial(held.groups, np.full(held.groups, 1 / held.groups), _DRAWS)
    refit_B = rng.choice(refits, _DRAWS)
    with np.errstate(invalid="ignore"):
        squares_LxB = np.einsum("bg,lbg->lb", counts_BxG, sums_LxRxG[:, refit_B])
        draws_LxB = np.sqrt(squares_LxB / (counts_BxG @ size_G)) - shift_L[:, None]
    return np.concatenate([whole_LxR[:, :1], draws_LxB], axis=1)
