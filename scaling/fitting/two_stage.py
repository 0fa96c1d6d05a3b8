"""Accuracy through loss: a law of the loss in size and tokens, then accuracy as a sigmoid of the loss (BETR, Mizrahi et
al. 2025, arXiv 2507.12466).

Letters: M rows, B bootstrap draws with the estimate in front, K points on a path, P parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import gaussian_kde

from scaling.fitting.estimate import fit
from scaling.fitting.evaluate import at_each, at_own
from scaling.fitting.inversions import Decision, decide, with_estimate
from scaling.fitting.problem import Problem
from scaling.fitting.resampling import random_weights, variance_for
from scaling.fitting.result import Fit, Refusal, tails
from scaling.fitting.tables import Holdout, read_codes, read_holdout
from scaling.laws.law import Law, TableError, read_column
from scaling.laws.selection import BETR_ACCURACY
from scaling.laws.size import CHINCHILLA


@dataclass(frozen=True, eq=False)
class TwoStage:
    """Loss from a run's inputs, accuracy from the loss. Draw b of both stages weighs the runs alike."""

    loss: Fit
    accuracy: Fit

    def predict(self, inputs: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
        """Accuracy at the estimate; inputs by the names of the loss law."""
        return self.accuracy.predict({"L": self.loss.predict(inputs)})

    def predict_draws(self, inputs: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
        """Accuracy at every draw, [B, ...]: each draw of the sigmoid at the loss of its own draw."""
        loss_BxK = self.loss.predict_draws(inputs)
        flat_BxK = loss_BxK.reshape(len(loss_BxK), -1)
        return at_own(self.accuracy.law, self.accuracy.draws_BxP, {"L": flat_BxK}).reshape(loss_BxK.shape)

    def interval(self, inputs: Mapping[str, Any] | pd.DataFrame, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Bootstrap percentile interval of the accuracy, with the uncertainty of both stages."""
        low, high = np.quantile(self.predict_draws(inputs), tails(level), axis=0)
        return low, high

    def summary(self) -> str:
        """Both fits in words."""
        return f"{self.loss.summary()}\n{self.accuracy.summary()}"


def two_stage(
    table: pd.DataFrame,
    *,
    law: Law = CHINCHILLA,
    columns: Mapping[str, str] | None = None,
    target: str = "loss",
    accuracy: str = "accuracy",
    group: str | None = "run_id",
    stratum: str | None = None,
    weights: str | None = None,
    bootstrap: int = 400,
    seed: int = 0,
    holdout: Holdout = None,
) -> TwoStage:
    """Fits `law` to the loss, then Acc = c1/(1 + exp(k*(L - L0))) + c2 to the observed losses and accuracies.

    The sigmoid is fitted by least squares, with the extra point (L = 0, accuracy 1) in every draw; where accuracy is
    not 1 there, predictions far below the fitted losses are off by more than their intervals say. Runs weigh alike in
    a draw of both stages, by more in that which calls for more (`resampling.weight_variance`). `weights` names the
    column of factors of the loss fit, such as `inverse_density` of the FLOPs; the other arguments are those of
    `fitting.fit`. TableError for a table that cannot be fitted, or an accuracy outside [0, 1].
    """
    held_M = read_holdout(table, holdout)
    group_M = read_codes(table, group, "group") if group else np.arange(len(table))
    sigmoid = _accuracy_rows(table, target, accuracy, held_M, group_M)
    loss = fit(
        law,
        table,
        columns=columns,
        target=target,
        group=group,
        stratum=stratum,
        weights=weights,
        bootstrap=0,
        seed=seed,
        holdout=held_M,
    )
    grouped = fit(BETR_ACCURACY, sigmoid, target="accuracy", group="group", bootstrap=0, seed=seed, holdout="held")
    if not bootstrap or loss.groups < 2:
        return TwoStage(loss, grouped)
    points, variance = loss.points.fitted, called_variance(loss)
    weights_BxM = random_weights(points, variance, bootstrap, seed)
    paired_BxM = random_weights(points, max(variance, called_variance(grouped)), bootstrap, seed)
    with_anchor_BxM = np.pad(paired_BxM, ((0, 0), (0, 1)), constant_values=1.0)
    return TwoStage(_with_draws(loss, weights_BxM), _with_draws(grouped, with_anchor_BxM))


def _accuracy_rows(
    table: pd.DataFrame, target: str, accuracy: str, held_M: np.ndarray, group_M: np.ndarray
) -> pd.DataFrame:
    """The rows of the second stage, and the point of zero loss: a group of its own."""
    loss_M = read_column(table, target, "the loss of the first stage; name it with target=")
    accuracy_M = read_column(table, accuracy, "the accuracy of the second stage; name it with accuracy=")
    if (bad_M := (accuracy_M < 0) | (accuracy_M > 1)).any():
        row = int(np.argmax(bad_M))
        raise TableError(
            f"column {accuracy!r}, row {table.index[row]}: {accuracy_M[row]:g} is outside [0, 1]; give accuracy as a"
            " share, not in percent"
        )
    columns = {"L": loss_M, "accuracy": accuracy_M, "held": held_M, "group": group_M}
    rows = pd.DataFrame(columns, index=table.index.astype(object))
    zero = {"L": [0.0], "accuracy": [1.0], "held": [False], "group": [int(group_M.max()) + 1]}
    anchor = pd.DataFrame(zero, index=["the point of zero loss"])
    return pd.concat([rows, anchor])


def called_variance(found: Fit) -> float:
    """The variance of weights that a fit calls for."""
    problem = Problem(found.law, found.objective, found.points.fitted)
    near = problem.expansion(problem.coordinates(np.array([list(found.parameters.values())]))[0])
    return variance_for(near, problem.points, found.objective.delta)


def _with_draws(found: Fit, weights_BxM: np.ndarray) -> Fit:
    problem = Problem(found.law, found.objective, found.points.fitted)
    u_P = problem.coordinates(np.array([list(found.parameters.values())]))[0]
    return replace(found, draws_BxP=problem.natural(problem.resample(u_P, weights_BxM)))


def inverse_density(flops_M: Any) -> np.ndarray:
    """Weights 1/density of log FLOPs, mean 1, so that crowded budgets do not rule the fit.

    The density is a Gaussian kernel estimate with Scott's bandwidth; the paper names none. ValueError for FLOPs that
    are not finite and positive, or all the same.
    """
    flops_M = np.asarray(flops_M, dtype=np.float64)
    if not (np.isfinite(flops_M).all() and (flops_M > 0).all() and np.ptp(flops_M) > 0):
        raise ValueError(f"flops: {flops_M.min():g} to {flops_M.max():g} must be finite, positive, not all the same")
    log_M = np.log(flops_M)
    weight_M = 1 / gaussian_kde(log_M)(log_M)
    return weight_M / weight_M.mean()


def accuracy_path(model: TwoStage, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Accuracy along a path, estimate first and then each draw, [B, K]; inputs by the names of the loss law."""
    read = model.loss.law.read_inputs(inputs)
    loss_BxK = at_each(model.loss.law, with_estimate(model.loss), read)
    return at_own(model.accuracy.law, with_estimate(model.accuracy), {"L": loss_BxK})


def accuracy_multiplier(
    flops_K: np.ndarray, baseline_BxK: np.ndarray, method_BxK: np.ndarray, *, bins: int = 20, level: float = 0.95
) -> Decision:
    """How many times fewer FLOPs a method needs than the baseline for equal accuracy (2: half of them).

    Accuracies of both at the same FLOPs, each along its own compute-optimal path, estimate in the first row and draws
    below (`accuracy_path`). Accuracy is cut into `bins` equal ones over what both reach; a bin's FLOPs are averaged for
    either; the ratio baseline/method is averaged over the bins that both enter. Use a dense grid of FLOPs. A draw
    without a common bin counts as 0. Refusals: "infeasible" (the estimate has none), "unstable" (more than a tenth of
    the draws have none), "few_groups" (no draws). ValueError for shapes that do not match.
    """
    if baseline_BxK.shape != method_BxK.shape or baseline_BxK.shape[1:] != np.shape(flops_K):
        raise ValueError(
            f"accuracies: shapes {baseline_BxK.shape} and {method_BxK.shape} must both be (1 + draws,"
            f" {np.shape(flops_K)[0]}), one column for each of the FLOPs"
        )
    pairs = zip(baseline_BxK, method_BxK, strict=True)
    multiplier_B = np.array([_multiplier(np.asarray(flops_K), *pair, bins) for pair in pairs])
    refusal = None
    if math.isnan(multiplier_B[0]):
        refusal = Refusal("infeasible", "baseline and method share no bin of accuracy; extend the FLOPs of either")
    return decide(multiplier_B, refusal, 0.0, level)


def _multiplier(flops_K: np.ndarray, baseline_K: np.ndarray, method_K: np.ndarray, bins: int) -> float:
    low, high = max(baseline_K.min(), method_K.min()), min(baseline_K.max(), method_K.max())
    if not high > low:
        return math.nan
    edges = np.linspace(low, high, bins + 1)
    means = []
    for accuracy_K in (baseline_K, method_K):
        count, total = (
            np.histogram(accuracy_K, edges, weights=weight_K)[0] for weight_K in (np.ones_like(flops_K), flops_K)
        )
        means.append(np.divide(total, count, out=np.full(bins, math.nan), where=count > 0))
    ratio = means[0] / means[1]
    return float(np.nanmean(ratio)) if np.isfinite(ratio).any() else math.nan
