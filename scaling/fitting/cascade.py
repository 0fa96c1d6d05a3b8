"""Limits of limits: the loss of infinite ensembles of infinitely large models, against unique tokens (Kim et al. 2025,
"Pre-training under infinite compute").

At each stage E + A/x^alpha is fitted in one variable for every setting of the later ones, and its limit E is the next
stage's loss. A stage has about as many points as parameters, so its own residuals say nothing of the noise: that is
given, and whole cascades are refitted to losses redrawn with it.

Letters: F fits of a stage, M points of a fit (padded by weight 0), B draws with the estimate in front, P parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd

from scaling.fitting import coordinates, solver
from scaling.fitting.evaluate import at_each
from scaling.fitting.inversions import Decision, decide
from scaling.fitting.objectives import least_squares
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.fitting.result import Refusal, tails
from scaling.laws.law import TableError, read_column
from scaling.laws.selection import INFINITE_COMPUTE

_LEAST = len(INFINITE_COMPUTE.parameters)


@dataclass(frozen=True, eq=False)
class Stage:
    """The fits of one stage: `variable` goes to infinity, for each row of `settings` (the later variables)."""

    variable: str
    settings: pd.DataFrame
    parameters_BxFxP: np.ndarray

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """Settings with E, A, alpha of each fit and percentile intervals of E and alpha."""
        names = INFINITE_COMPUTE.parameter_names
        columns = dict(zip(names, self.parameters_BxFxP[0].T, strict=True))
        low_FxP, high_FxP = np.quantile(self.parameters_BxFxP[1:], tails(level), axis=0)
        for name in ("E", "alpha"):
            place = names.index(name)
            columns |= {f"{name}_low": low_FxP[:, place], f"{name}_high": high_FxP[:, place]}
        return self.settings.assign(**columns)


@dataclass(frozen=True, eq=False)
class Cascade:
    """The stages in order. The last has one fit, of the joint limit against its variable."""

    stages: tuple[Stage, ...]
    noise: float

    @property
    def last_BxP(self) -> np.ndarray:
        """Parameters of the last stage, estimate first."""
        return self.stages[-1].parameters_BxFxP[:, 0]

    @property
    def refusal(self) -> Refusal | None:
        """Why not to act on the cascade: "unstable" where more than a tenth of the draws end on a bound in any stage,
        since the points do not bend enough against the noise to show a limit.
        """
        bound = max(float(_on_bound(stage.parameters_BxFxP[1:]).mean()) for stage in self.stages)
        if bound <= 0.1:
            return None
        reason = f"{bound:.0%} of the draws end on a bound: the losses do not bend enough against noise {self.noise:g}"
        return Refusal("unstable", f"{reason}; add larger values of the variables", ("E", "alpha"))

    def predict(self, values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The joint limit at values of the last variable: estimate, lower and upper end of the percentile interval,
        which do not hold where there is a `refusal`.
        """
        predicted_BxK = at_each(INFINITE_COMPUTE, self.last_BxP, INFINITE_COMPUTE.read_inputs({"x": values}))
        low, high = np.quantile(predicted_BxK[1:], tails(level), axis=0)
        return predicted_BxK[0], low, high

    def limit(self, level: float = 0.95) -> Decision:
        """The loss left when every variable is infinite, E of the last stage, with the cascade's `refusal`."""
        limit_B = self.last_BxP[:, INFINITE_COMPUTE.parameter_names.index("E")]
        return decide(limit_B, self.refusal, math.nan, level)


def cascade(
    table: pd.DataFrame,
    variables: Sequence[str],
    *,
    noise: float,
    target: str = "loss",
    draws: int = 400,
    seed: int = 0,
) -> Cascade:
    """Limits in each of `variables` in turn, such as ("K", "N", "U"): fits in K for every (N, U), of these limits in N
    for every U, of those in U.

    `noise` is the standard deviation of a loss between seeds, in nats/token; the draws of the cascade see losses
    redrawn with it. Raises TableError for a missing column, a variable that is not positive, a setting with fewer than
    3 values of its variable, or rows that repeat a setting; ValueError for no variables, `noise` <= 0, or no draws.
    """
    if not noise > 0:
        raise ValueError(f"noise: {noise} must be > 0: the standard deviation of a loss between seeds, e.g. 0.01")
    if not variables or draws < 1:
        raise ValueError(f"variables: {tuple(variables)}, draws: {draws}: one variable and one draw at least")
    settings = pd.DataFrame({name: read_column(table, name, "a variable of the cascade") for name in variables})
    if (bad_MxV := settings.to_numpy() <= 0).any():
        row, place = np.argwhere(bad_MxV)[0]
        name = settings.columns[place]
        raise TableError(f"column {name!r}, row {table.index[row]}: {settings.iloc[row, place]:g} must be > 0; drop it")
    loss_M = read_column(table, target, "the loss; name it with target=")
    if (again := settings.duplicated()).any():
        row = int(np.argmax(again))
        repeat = f"row {table.index[row]}: repeats {settings.iloc[row].to_dict()}"
        raise TableError(f"{repeat}; average the seeds first, and give the noise of a mean")
    rng = np.random.default_rng(seed)
    loss_BxM = loss_M + np.concatenate([np.zeros((1, loss_M.size)), rng.normal(scale=noise, size=(draws, loss_M.size))])
    stages: list[Stage] = []
    for place, variable in enumerate(variables):
        stages.append(_stage(variable, list(variables[place + 1 :]), settings, loss_BxM, seed))
        settings, loss_BxM = stages[-1].settings, stages[-1].parameters_BxFxP[:, :, 0]
    return Cascade(tuple(stages), noise)


def _stage(variable: str, later: list[str], settings: pd.DataFrame, loss_BxM: np.ndarray, seed: int) -> Stage:
    code_M = settings.groupby(later, sort=True).ngroup().to_numpy() if later else np.zeros(len(settings), dtype=int)
    members = [np.flatnonzero(code_M == code) for code in range(int(code_M.max()) + 1)]
    labels = settings[later].iloc[[rows[0] for rows in members]].reset_index(drop=True)
    for place, rows in enumerate(members):
        if len(rows) < _LEAST:
            raise TableError(
                f"{labels.iloc[place].to_dict() or 'the last stage'}: {len(rows)} values of {variable!r}, at least"
                f" {_LEAST} needed for its limit; add runs"
            )
    values_M = settings[variable].to_numpy()
    found = [_draws_of(values_M[rows], loss_BxM[:, rows], seed) for rows in members]
    return Stage(variable, labels, np.stack(found, axis=1))


def _draws_of(x_M: np.ndarray, loss_BxM: np.ndarray, seed: int) -> np.ndarray:
    """Parameters fitted to each row of losses, [B, P]: the first from many starts, the others from its minimum."""
    rows, idle = len(x_M), solver.pad(len(x_M)) - len(x_M)
    ones_M, codes_M = np.ones(rows), np.zeros(rows, dtype=int)
    points = Points({"x": x_M}, loss_BxM[0], ones_M, np.full(rows, math.nan), codes_M, codes_M, codes_M.astype(bool))
    problem = Problem(INFINITE_COMPUTE, least_squares(), points)
    first_P = problem.solve(seed).u_P
    data, draws = problem.data, len(loss_BxM)
    own = solver.Data(
        {"x": np.tile(data.inputs["x"], (draws, 1))},
        np.pad(loss_BxM, ((0, 0), (0, idle)), mode="edge"),
        np.tile(data.unit_M, (draws, 1)),
        np.tile(data.reference_I, (draws, 1)),
    )
    weights_BxM = np.tile(problem.weights(), (draws, 1))
    u_BxP, _ = solver.minimise(
        INFINITE_COMPUTE, "raw", math.inf, own, np.tile(first_P, (draws, 1)), weights_BxM, 200, 1e-10, own_data=True
    )
    u_BxP[0] = first_P
    with jax.enable_x64(True):
        return np.asarray(coordinates.natural_lanes(INFINITE_COMPUTE, u_BxP, data.reference_I))


def _on_bound(parameters_BxFxP: np.ndarray) -> np.ndarray:
    """Which draws have E or alpha on a bound in any fit, [B]."""
    on_B = np.zeros(len(parameters_BxFxP), dtype=bool)
    for place, parameter in enumerate(INFINITE_COMPUTE.parameters):
        if parameter.unit is None:
            low, high = parameter.limits
            value_BxF = parameters_BxFxP[:, :, place]
            on_B |= ((value_BxF <= low * (1 + 1e-6)) | (value_BxF >= high * (1 - 1e-6))).any(axis=1)
    return on_B


def data_efficiency(baseline: Cascade, method: Cascade, tokens: float, level: float = 0.95) -> Decision:
    """How many times more unique tokens the baseline needs for the loss that the method reaches with `tokens`.

    Both last stages must be in unique tokens. (A_b/(L - E_b))^(1/alpha_b)/tokens, L the method's loss; inf where L lies
    below the baseline's limit. The two are of different runs, so their draws pair at random. Refusals: "unbounded" (the
    estimate is inf), "unstable" (more than a tenth of the draws are, or one of the cascades is). ValueError where the
    numbers of draws differ.
    """
    if len(baseline.last_BxP) != len(method.last_BxP):
        raise ValueError(
            f"method: {len(method.last_BxP) - 1} draws, the baseline has {len(baseline.last_BxP) - 1}; use as many"
        )
    shuffled_B = np.random.default_rng(0).permutation(np.arange(1, len(method.last_BxP)))
    method_BxP = method.last_BxP[[0, *shuffled_B]]  # of one seed both cascades saw the same noise
    loss_B = at_each(INFINITE_COMPUTE, method_BxP, INFINITE_COMPUTE.read_inputs({"x": np.array([tokens])}))[:, 0]
    limit_B, size_B, alpha_B = baseline.last_BxP.T
    excess_B = loss_B - limit_B
    above_B = excess_B > 0
    needed_B = np.full(len(loss_B), math.nan)
    needed_B[above_B] = (size_B[above_B] / excess_B[above_B]) ** (1 / alpha_B[above_B])
    refusal = baseline.refusal or method.refusal
    if not above_B[0]:
        needed_B[0] = math.inf
        reason = f"the method's loss at {tokens:g} tokens lies below the baseline's limit {limit_B[0]:.4g}"
        refusal = Refusal("unbounded", f"{reason}: no number of tokens makes up for it")
    return decide(needed_B / tokens, refusal, math.inf, level)
