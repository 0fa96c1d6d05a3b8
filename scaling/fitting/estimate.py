"""From a law and a table to a fit.

Letters: B bootstrap draws, M points (padded), G groups, P parameters.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from scaling.fitting import coordinates, identification, resampling, solver, starts, uncertainty
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective, huber, least_squares
from scaling.fitting.result import Errors, Fit
from scaling.fitting.solver import Data
from scaling.fitting.tables import Holdout, read_codes, read_holdout, read_target
from scaling.laws.law import Law


def fit(
    law: Law,
    table: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    target: str = "loss",
    group: str | None = "run_id",
    stratum: str | None = None,
    objective: Objective | None = None,
    bootstrap: int = 400,
    seed: int = 0,
    holdout: Holdout = None,
) -> Fit:
    """Fits a law to a table, one row a point.

    `columns` maps a law's input to its column (same name by default). `group` names the column whose equal values share
    noise: the run; None makes each row its own group. `stratum` names a column constant within a group; resampling
    stays within strata. `objective` is `huber(1e-3)` on log loss by default, `least_squares()` for a law whose
    `scale` is raw. `holdout`: a boolean mask over rows, or a
    function from the table to one, such as `largest("N")`; those rows are predicted, never fitted.

    Starts: 1024 Sobol points with linear parameters solved for, screened; the best 64 polished. Bootstrap draws start
    from the estimate, so they describe its own basin. float64 throughout, whatever the caller's precision.

    Raises TableError (a ValueError) for a table that cannot be fitted. What is fitted but not known is in
    `Fit.refusals`.
    """
    objective = objective or (huber() if law.scale == "log" else least_squares())
    inputs = law.read_inputs(table, columns)
    target_M = read_target(table, target, law, objective)
    held_M = read_holdout(table, holdout)
    seen = {name: x_M[~held_M] for name, x_M in inputs.items()}
    law.check_design(seen)
    group_M = read_codes(table, group, "group")[~held_M] if group else np.arange((~held_M).sum())
    group_M = np.unique(group_M, return_inverse=True)[1]
    stratum_M = read_codes(table, stratum, "stratum")[~held_M] if stratum else np.zeros_like(group_M)
    groups = int(group_M.max()) + 1
    if bootstrap < 0:
        raise ValueError(f"bootstrap: {bootstrap} must be >= 0; 0 for a fit without intervals")
    draws = bootstrap if groups > 1 else 0
    counts_BxG = resampling.group_counts(group_M, stratum_M, seen, len(law.parameters), draws, seed) if draws else None
    with jax.enable_x64(True):
        assert jnp.zeros(()).dtype == jnp.float64
        solution = _Solution(law, objective, seen, target_M[~held_M], seed)
        draws_BxP = (
            np.zeros((0, len(law.parameters))) if counts_BxG is None else solution.resample(counts_BxG[:, group_M])
        )
        covariance_PxP = solution.covariance(group_M)
    refusals = identification.refusals(
        law, solution.u_P, solution.near, seen, target_M[~held_M], objective.delta, solution.agreement, groups
    )
    parameters_P = solution.near.parameters_P
    prediction_M = at_each(law, parameters_P[None], inputs)[0]
    return Fit(
        law=law,
        objective=objective,
        parameters=dict(zip(law.parameter_names, parameters_P.tolist(), strict=True)),
        covariance_PxP=covariance_PxP,
        draws_BxP=draws_BxP,
        value=solution.value,
        agreement=solution.agreement,
        groups=groups,
        ranges={name: (float(x_M.min()), float(x_M.max())) for name, x_M in seen.items()},
        errors=Errors.of(prediction_M[~held_M], target_M[~held_M]),
        held_out=Errors.of(prediction_M[held_M], target_M[held_M]) if held_M.any() else None,
        refusals=refusals,
    )


class _Solution:
    """The estimate in coordinates, with what is asked of it while 64 bits are enabled."""

    def __init__(
        self, law: Law, objective: Objective, inputs: Mapping[str, np.ndarray], target_M: np.ndarray, seed: int
    ):
        self.law, self.objective, self.points = law, objective, len(target_M)
        self.data = padded(law, inputs, target_M)
        weights_M = self.weights(np.ones((1, self.points)))
        start_SxP = starts.screened(law, objective, self.data, weights_M[0], seed)
        u_SxP, value_S = self.minimise(
            start_SxP, np.repeat(weights_M, len(start_SxP), axis=0), steps=300, tolerance=1e-12
        )
        best = int(np.argmin(value_S))
        self.u_P, self.value = coordinates.ordered(law, u_SxP[best]), float(value_S[best])
        self.agreement = float(np.mean(value_S <= self.value * (1 + 1e-6) + 1e-16 * self.points))
        self.near = solver.expansion(law, objective.scale, self.data, self.u_P, self.points)

    def weights(self, weights_LxM: np.ndarray) -> np.ndarray:
        """Weights with zeros for the padding."""
        return np.pad(weights_LxM.astype(np.float64), ((0, 0), (0, len(self.data.target_M) - self.points)))

    def minimise(
        self, u_LxP: np.ndarray, weights_LxM: np.ndarray, steps: int, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima from each start under each weighting."""
        objective = self.objective
        return solver.minimise(
            self.law, objective.scale, objective.delta, self.data, u_LxP, weights_LxM, steps, tolerance
        )

    def resample(self, counts_BxM: np.ndarray) -> np.ndarray:
        """Parameters of each reweighted fit, started from the estimate."""
        start_BxP = np.tile(self.u_P, (len(counts_BxM), 1))
        u_BxP, _ = self.minimise(start_BxP, self.weights(counts_BxM), steps=100, tolerance=1e-8)
        return np.asarray(coordinates.natural_lanes(self.law, u_BxP, self.data.reference_I))

    def covariance(self, group_M: np.ndarray) -> np.ndarray:
        """Clustered covariance of the parameters."""
        near = self.near
        covariance_PxP = uncertainty.sandwich(near.jacobian_PxM, near.residual_M, group_M, self.objective.delta)
        return near.change_PxP @ covariance_PxP @ near.change_PxP.T


def padded(law: Law, inputs: Mapping[str, np.ndarray], target_M: np.ndarray) -> Data:
    """The points, padded to a shared size by copies of the first row (to be given weight 0)."""
    extra = solver.pad(len(target_M)) - len(target_M)
    longer = {name: np.concatenate([x_M, np.repeat(x_M[:1], extra)]) for name, x_M in inputs.items()}
    return Data(longer, np.concatenate([target_M, np.repeat(target_M[:1], extra)]), coordinates.reference(law, inputs))
