"""When to stop gathering data: a curve law fitted to growing prefixes of a learning curve (after Vilares Ferro, Darriba
Bilbao and Ribadas Pena, arXiv 2402.02515).

Letters: K prefixes, M rows, S starts, P parameters.
"""

from dataclasses import dataclass, field

import jax
import numpy as np
import pandas as pd

from scaling.fitting import coordinates, starts
from scaling.fitting.evaluate import at_each
from scaling.fitting.objectives import Objective, default_objective
from scaling.fitting.problem import Problem
from scaling.fitting.result import Refusal
from scaling.fitting.tables import read_points
from scaling.laws.law import Law, TableError

_STARTS = 16  # polished a prefix
_RUN = 3  # successive prefixes that must agree


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Fits to the first 4, 5, ... rows of a curve (one more than the law has parameters), and what they say.

    `seen_K`: the largest x of each prefix. `prediction_K`: the target predicted at `horizon`. `admissible_K`: no
    parameter on a bound, prediction within the limits. `level`: the prediction level, the number of the first prefix of
    the unbroken run of admissible ones that the decision rests on. `stop`: the number of the first prefix at which the
    rule is met, with `refusal` where it never is.
    """

    law: Law
    horizon: float
    threshold: float
    seen_K: np.ndarray
    parameters_KxP: np.ndarray = field(repr=False)
    prediction_K: np.ndarray
    admissible_K: np.ndarray
    level: int | None
    stop: int | None
    refusal: Refusal | None

    @property
    def estimate(self) -> float:
        """The prediction at `horizon` where the rule stops; ValueError where it never does."""
        if self.stop is None:
            raise ValueError(f"no estimate: {self.refusal}")
        return float(self.prediction_K[self.stop])

    def table(self) -> pd.DataFrame:
        """One row a prefix."""
        parameters = dict(zip(self.law.parameter_names, self.parameters_KxP.T, strict=True))
        columns = {"seen": self.seen_K, "prediction": self.prediction_K, "admissible": self.admissible_K}
        return pd.DataFrame({**columns, **parameters})

    def __str__(self) -> str:
        head = f"{self.law.name}: {len(self.seen_K)} prefixes, target at {self.horizon:g}"
        if self.level is not None:
            head += f", trusted from {self.seen_K[self.level]:g}"
        if self.stop is None:
            return f"{head}; refused, {self.refusal}"
        return f"{head}, stop at {self.seen_K[self.stop]:g} with {self.estimate:.4g} (threshold {self.threshold:g})"


def prefixes(
    law: Law,
    table: pd.DataFrame,
    *,
    horizon: float,
    threshold: float,
    limits: tuple[float, float] = (-np.inf, np.inf),
    columns: dict[str, str] | None = None,
    target: str = "loss",
    objective: Objective | None = None,
    seed: int = 0,
) -> Prefixes:
    """Fits the law to every prefix of one curve and says when its value at `horizon` was known well enough.

    `law` has one input, the amount of data; rows are taken in its order. A prefix is admissible where no parameter
    ended on a bound and the prediction at `horizon` lies within `limits`, such as (0, 1) for an accuracy. The rule
    stops at the first prefix that ends a run of three admissible ones whose predictions differ by at most `threshold`,
    in the target's unit; it looks at no later row. The paper's own conditions are on its asymptotes and are read from
    the abstract only, so this run of three is ours.

    All prefixes share one compilation, as weights on the rows. Raises ValueError for a law with several inputs, a
    threshold or horizon that is not positive; TableError for a table too short for three prefixes.
    """
    if len(law.inputs) != 1:
        raise ValueError(f"law {law.name!r} has inputs {', '.join(law.input_names)}; a curve law with one is needed")
    for name, value in (("horizon", horizon), ("threshold", threshold)):
        if not value > 0:
            raise ValueError(f"{name}: {value} must be > 0")
    objective = objective or default_objective(law, known_errors=False)
    problem, x_M = _ordered(law, objective, table, columns, target)
    count_K = np.arange(len(law.parameters) + 1, len(x_M) + 1)
    weight_KxM = (np.arange(len(x_M)) < count_K[:, None]).astype(np.float64)
    u_KxP = _fit_each(problem, weight_KxM, seed)
    parameters_KxP = problem.natural(u_KxP)
    prediction_K = at_each(law, parameters_KxP, {law.input_names[0]: np.array([horizon])})[:, 0]
    low_P, high_P = coordinates.bounds(law)
    admissible_K = ((u_KxP > low_P) & (u_KxP < high_P)).all(axis=1)
    admissible_K &= (prediction_K >= limits[0]) & (prediction_K <= limits[1])
    level, stop = stopping(prediction_K, admissible_K, threshold)
    refusal = None if stop is not None else _refusal(level, prediction_K, threshold)
    seen_K = x_M[count_K - 1]
    return Prefixes(law, horizon, threshold, seen_K, parameters_KxP, prediction_K, admissible_K, level, stop, refusal)


def stopping(prediction_K: np.ndarray, admissible_K: np.ndarray, threshold: float) -> tuple[int | None, int | None]:
    """Prediction level and stop: the first prefix that ends three admissible ones within `threshold` of one another.

    The level is the start of the unbroken admissible run that holds the stop, or, without a stop, of the last one if
    that reaches the end; None where there is none.
    """
    start: int | None = None
    for k, good in enumerate(admissible_K):
        start = (k if start is None else start) if good else None
        if start is not None and k - start + 1 >= _RUN and np.ptp(prediction_K[k - _RUN + 1 : k + 1]) <= threshold:
            return start, k
    return start, None


def _ordered(
    law: Law, objective: Objective, table: pd.DataFrame, columns: dict[str, str] | None, target: str
) -> tuple[Problem, np.ndarray]:
    name = law.input_names[0]
    order_M = np.argsort(law.read_inputs(table, columns)[name], kind="stable")
    points = read_points(
        table.iloc[order_M],
        law,
        objective,
        columns=columns,
        target=target,
        group=None,
        stratum=None,
        weights=None,
        error=None,
        holdout=None,
    )
    least = len(law.parameters) + _RUN
    if len(points) < least:
        raise TableError(f"table: {len(points)} rows, at least {least} needed for {_RUN} prefixes of law {law.name!r}")
    return Problem(law, objective, points), points.inputs[name]


def _fit_each(problem: Problem, weight_KxM: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates of the best minimum of each weighting, [K, P]."""
    law, objective, data = problem.law, problem.objective, problem.data
    with jax.enable_x64(True):
        chosen = [
            starts.screened(law, objective, data, weights_M, seed, keep=_STARTS)
            for weights_M in problem.weights(weight_KxM)
        ]
    number_L = np.repeat(np.arange(len(chosen)), [len(start_SxP) for start_SxP in chosen])
    u_LxP, value_L = problem.minimise(np.concatenate(chosen), weight_KxM[number_L], steps=300, tolerance=1e-12)
    best_K = [np.flatnonzero(number_L == k)[np.argmin(value_L[number_L == k])] for k in range(len(chosen))]
    return np.stack([coordinates.ordered(law, u_LxP[best]) for best in best_K])


def _refusal(level: int | None, prediction_K: np.ndarray, threshold: float) -> Refusal:
    if level is None:
        reason = "the last prefix is not admissible (a parameter on its bound, or a prediction outside the limits)"
        return Refusal("unstable", f"{reason}; gather more data, or choose a law with fewer parameters")
    spread = float(np.ptp(prediction_K[max(level, len(prediction_K) - _RUN) :]))
    reason = f"the last predictions differ by {spread:.4g}, more than the threshold {threshold:g}, or are fewer than"
    return Refusal("unstable", f"{reason} {_RUN}; gather more data")
