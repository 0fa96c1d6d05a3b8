"""From a law and a table to a fit.

Letters: B bootstrap draws, M points, P parameters.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling.fitting import identification, resampling, uncertainty
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective, default_objective
from scaling.fitting.points import Points
from scaling.fitting.problem import Minimum, Problem
from scaling.fitting.result import Errors, Fit
from scaling.fitting.solver import Expansion
from scaling.fitting.tables import Holdout, read_points
from scaling.laws.law import Law


def fit(
    law: Law,
    table: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    target: str = "loss",
    group: str | None = "run_id",
    stratum: str | None = None,
    weights: str | None = None,
    error: str | None = None,
    objective: Objective | None = None,
    bootstrap: int = 400,
    seed: int = 0,
    holdout: Holdout = None,
) -> Fit:
    """Fits a law to a table, one row a point.

    `columns` maps a law's input to its column (same name by default). `group` names the column whose equal values share
    noise: the run; None makes each row its own group. `stratum` names a column constant within a group; resampling
    stays within strata, of which those of fewer than 3 groups are joined. `weights` names a column of positive factors
    on the rows' terms of the objective: counts, whose unit moves no estimate but does move `information`'s criteria.
    `error` names one of known standard errors of the target, in whose units residuals are then measured. `objective`:
    by default `huber(1e-3)` on log loss (`huber(1.345)` with known errors), `least_squares()` for a law whose `scale`
    is raw. `holdout`: a condition such as "N > 1e9", a boolean mask over rows, or a function from the table to one,
    such as `largest("N")`; those rows are predicted, never fitted.

    Starts: 1024 Sobol points with linear parameters solved for, screened; the best 64 polished. Bootstrap draws start
    from the estimate, so they describe its own basin. float64 throughout, whatever the caller's precision.

    Raises TableError (a ValueError) for a table that cannot be fitted. What is fitted but not known is in
    `Fit.refusals`.
    """
    objective = objective or default_objective(law, known_errors=error is not None)
    points = read_points(
        table,
        law,
        objective,
        columns=columns,
        target=target,
        group=group,
        stratum=stratum,
        weights=weights,
        error=error,
        holdout=holdout,
    )
    return fit_points(law, objective, points, bootstrap=bootstrap, seed=seed)


def fit_points(law: Law, objective: Objective, points: Points, *, bootstrap: int = 400, seed: int = 0) -> Fit:
    """The fit to points already read: what `fit` does after reading the table."""
    if bootstrap < 0:
        raise ValueError(f"bootstrap: {bootstrap} must be >= 0; 0 for a fit without intervals")
    problem = Problem(law, objective, points.fitted)
    law.check_design(problem.points.inputs)
    minimum = problem.solve(seed)
    near = problem.expansion(minimum.u_P)
    prediction_M = at_each(law, near.parameters_P[None], points.inputs)[0]
    held_M = points.held_M
    return Fit(
        law=law,
        objective=objective,
        parameters=dict(zip(law.parameter_names, near.parameters_P.tolist(), strict=True)),
        covariance_PxP=uncertainty.covariance(near, problem.points, objective.delta),
        draws_BxP=_draws(problem, minimum, near, bootstrap, seed),
        value=minimum.value,
        agreement=minimum.agreement,
        points=points,
        errors=Errors.of(prediction_M[~held_M], points.target_M[~held_M]),
        held_out=Errors.of(prediction_M[held_M], points.target_M[held_M]) if held_M.any() else None,
        refusals=identification.refusals(problem, minimum, near),
    )


def _draws(problem: Problem, minimum: Minimum, near: Expansion, draws: int, seed: int) -> np.ndarray:
    points, parameters = problem.points, len(problem.law.parameters)
    if not draws or points.groups < 2:
        return np.zeros((0, parameters))
    variance = resampling.variance_for(near, points, problem.objective.delta)
    weights_BxM = resampling.random_weights(points, variance, draws, seed)
    return problem.natural(problem.resample(minimum.u_P, weights_BxM))
