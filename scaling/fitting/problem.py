"""A law, an objective and points, ready to be minimised: the one place where the solver is called from.

Letters: L lanes, M points (padded in the solver), P parameters.
"""

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from scaling.fitting import coordinates, solver, starts
from scaling.fitting.objectives import Objective
from scaling.fitting.points import Points
from scaling.fitting.solver import Data, Expansion
from scaling.laws.law import Law


@dataclass(frozen=True)
class Minimum:
    """The best minimum found: coordinates, objective, and the share of polished starts within 1e-6 of it."""

    u_P: np.ndarray
    value: float
    agreement: float


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimises `objective` of `law` over all rows of `points`. Methods enable 64 bits for themselves."""

    law: Law
    objective: Objective
    points: Points

    @cached_property
    def data(self) -> Data:
        """The points, padded to a shared size by copies of the first row (which get weight 0)."""
        extra = solver.pad(len(self.points)) - len(self.points)

        def longer(x_M: np.ndarray) -> np.ndarray:
            return np.concatenate([x_M, np.repeat(x_M[:1], extra)])

        inputs, target_M, sigma_M = self.points.inputs, self.points.target_M, self.points.sigma_M
        unit_M = np.ones_like(target_M)
        if not np.isnan(sigma_M).any():
            unit_M = sigma_M / target_M if self.objective.scale == "log" else sigma_M
        return Data(
            {name: longer(x_M) for name, x_M in inputs.items()},
            longer(target_M),
            longer(unit_M),
            coordinates.reference(self.law, inputs),
        )

    def weights(self, weights_LxM: np.ndarray | None = None) -> np.ndarray:
        """The rows' own weights, times `weights_LxM`, with zeros for the padding."""
        own_LxM = self.points.weight_M[None] * (1.0 if weights_LxM is None else weights_LxM)
        return np.pad(own_LxM.astype(np.float64), ((0, 0), (0, len(self.data.target_M) - len(self.points))))

    def solve(self, seed: int) -> Minimum:
        """The best of 64 polished starts out of 1024 screened."""
        with jax.enable_x64(True):
            start_SxP = starts.screened(self.law, self.objective, self.data, self.weights()[0], seed)
        u_SxP, value_S = self.minimise(start_SxP, None, steps=300, tolerance=1e-12)
        best = int(np.argmin(value_S))
        agreement = float(np.mean(value_S <= value_S[best] * (1 + 1e-6) + 1e-16 * len(self.points)))
        return Minimum(coordinates.ordered(self.law, u_SxP[best]), float(value_S[best]), agreement)

    def minimise(
        self, u_LxP: np.ndarray, weights_LxM: np.ndarray | None, steps: int, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Local minima from each start, under each weighting (one of all rows if None): coordinates, objectives."""
        full_LxM = np.broadcast_to(self.weights(weights_LxM), (len(u_LxP), len(self.data.target_M)))
        scale, delta = self.objective.scale, self.objective.delta
        return solver.minimise(self.law, scale, delta, self.data, u_LxP, full_LxM, steps, tolerance)

    def resample(self, u_P: np.ndarray, weights_BxM: np.ndarray) -> np.ndarray:
        """Coordinates of each reweighted fit, started from the estimate."""
        return self.minimise(np.tile(u_P, (len(weights_BxM), 1)), weights_BxM, steps=100, tolerance=1e-8)[0]

    def expansion(self, u_P: np.ndarray) -> Expansion:
        """First-order expansion at u over the rows."""
        with jax.enable_x64(True):
            return solver.expansion(self.law, self.objective.scale, self.data, u_P, len(self.points))

    def natural(self, u_LxP: np.ndarray) -> np.ndarray:
        """Parameters of coordinates, [L, P]."""
        with jax.enable_x64(True):
            return np.asarray(coordinates.natural_lanes(self.law, u_LxP, self.data.reference_I))

    def coordinates(self, parameters_LxP: np.ndarray) -> np.ndarray:
        """Coordinates of parameters, [L, P]: the inverse of `natural`."""
        reference_I = np.asarray(self.data.reference_I)
        return np.stack([coordinates.from_parameters(self.law, row_P, reference_I) for row_P in parameters_LxP])
