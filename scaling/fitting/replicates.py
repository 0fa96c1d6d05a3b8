"""Fits to simulated replicates of an experiment: what an estimate would have been had the noise fallen otherwise.

Letters: B replicates, M rows, P parameters.
"""

from collections.abc import Mapping

import numpy as np

from scaling.fitting import solver
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.laws.law import Law


def replicates(
    law: Law,
    objective: Objective,
    parameters: Mapping[str, float],
    inputs: Mapping[str, np.ndarray],
    *,
    noise: float,
    run_noise: float = 0.0,
    run_M: np.ndarray | None = None,
    count: int = 256,
    seed: int = 0,
) -> np.ndarray:
    """Parameters [B, P] fitted to `count` simulated tables of the law at `inputs`, each from the true parameters.

    The noise is normal, on the objective's scale: `noise` a row's own, `run_noise` shared by the rows of equal `run_M`.
    Their spread is what an interval has to cover; starting at the truth, they describe its own basin.
    """
    rows, rng = len(next(iter(inputs.values()))), np.random.default_rng(seed)
    truth_1xP = np.array([[parameters[name] for name in law.parameter_names]])
    exact_M = at_each(law, truth_1xP, inputs)[0]
    residual_BxM = rng.normal(scale=noise, size=(count, rows))
    if run_noise:
        run_M = np.arange(rows) if run_M is None else np.unique(run_M, return_inverse=True)[1]
        residual_BxM += rng.normal(scale=run_noise, size=(count, int(run_M.max()) + 1))[:, run_M]
    target_BxM = exact_M * np.exp(residual_BxM) if objective.scale == "log" else exact_M + residual_BxM
    no_M = np.zeros(rows, dtype=np.int64)
    points = Points(dict(inputs), exact_M, np.ones(rows), np.full(rows, np.nan), np.arange(rows), no_M, no_M > 0)
    problem = Problem(law, objective, points)
    one, idle = problem.data, len(problem.data.target_M) - rows
    data = solver.Data(
        {name: np.tile(x_M, (count, 1)) for name, x_M in one.inputs.items()},
        np.pad(target_BxM, ((0, 0), (0, idle)), mode="edge"),
        np.tile(one.unit_M, (count, 1)),
        np.tile(one.reference_I, (count, 1)),
    )
    start_BxP = np.tile(problem.coordinates(truth_1xP), (count, 1))
    weights_BxM = np.tile(problem.weights(), (count, 1))
    u_BxP, _ = solver.minimise(
        law, objective.scale, objective.delta, data, start_BxP, weights_BxM, steps=200, tolerance=1e-9, own_data=True
    )
    return problem.natural(u_BxP)
