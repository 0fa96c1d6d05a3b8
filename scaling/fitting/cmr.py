"""The critical mixture ratio against tokens, from curves at a few ratios and one model size (Gu et al. 2024).

Letters: B draws, K ratios, P parameters.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import pandas as pd

from scaling.fitting import coordinates, solver
from scaling.fitting.estimate import fit
from scaling.fitting.inversions import Decision, turning_point
from scaling.fitting.objectives import Objective, least_squares
from scaling.fitting.result import Fit, Refusal, tails
from scaling.laws.law import read_column
from scaling.laws.mixture import CMR_CRITICAL, CMR_DOMAIN_CHANGE, CMR_GENERAL_CHANGE


@dataclass(frozen=True)
class CriticalCurve:
    """What the procedure found for each ratio, why a ratio was left out, and the law through the rest.

    `curve` is None where fewer than three ratios turn within the measured tokens. Its draws carry the uncertainty of
    the turning points, through a refit for each draw.
    """

    general: dict[float, Fit]
    domain: dict[float, Fit]
    turning: dict[float, Decision]
    left_out: dict[float, Refusal]
    curve: Fit | None

    def at(self, tokens: float, level: float = 0.95) -> Decision:
        """The critical domain share at `tokens`, clipped to [0, 1].

        Refused as "infeasible" where the law is <= 0 (below its zero crossing), "unbounded" where it is >= 1,
        "few_groups" without draws. ValueError where there is no curve.
        """
        if self.curve is None:
            reasons = "; ".join(f"R = {ratio:g}: {refusal}" for ratio, refusal in self.left_out.items())
            raise ValueError(
                f"curve: fewer than 3 ratios turn within the measured tokens ({reasons}); add ratios or train longer"
            )
        value = float(self.curve.predict({"T": tokens}))
        refusal = None
        if value <= 0:
            refusal = Refusal("infeasible", f"the law gives {value:.4g} at {tokens:g} tokens, below its zero crossing")
        elif value >= 1:
            refusal = Refusal(
                "unbounded", f"the law gives {value:.4g} at {tokens:g} tokens; the critical ratio is 1 or more"
            )
        low = high = math.nan
        draws_B = np.zeros(0)
        if len(self.curve.draws_BxP):
            draws_B = np.clip(self.curve.predict_draws({"T": tokens}), 0.0, 1.0)
            low, high = np.quantile(draws_B, tails(level)).tolist()
        elif refusal is None:
            refusal = Refusal("few_groups", "no bootstrap draws, so no interval; train several seeds a ratio")
        share, warnings = min(max(value, 0.0), 1.0), self.curve.refusals
        return Decision(share, low, high, level, refusal, draws_B=draws_B, warnings=warnings)


def critical_curve(
    table: pd.DataFrame,
    *,
    ratio: str = "R",
    tokens: str = "T",
    general: str = "general_change",
    domain: str = "domain_change",
    group: str | None = "run_id",
    multiplier: float = math.inf,
    epsilon: float = 0.05,
    objective: Objective | None = None,
    bootstrap: int = 400,
    seed: int = 0,
) -> CriticalCurve:
    """Laws in tokens for each ratio; turning points T0(R); CMR(T0(R)) = R; R = alpha4*T^s4 + beta3 (arXiv 2407.17467).

    `table`: one row a logged point, with the loss changes against the start (nats/token). A ratio is left out where its
    general change has no turning point, turns beyond the measured tokens, or exceeds `epsilon` (the tolerated rise)
    where it turns. The paper's `epsilon` is 0.05; its objective is not stated, here least squares. With one run a ratio
    there are no intervals.
    """
    objective = objective or least_squares()
    fit_one = partial(fit, group=group, objective=objective, bootstrap=bootstrap, seed=seed, columns={"T": tokens})
    share_M = read_column(table, ratio, "the token share of the domain corpus")
    generals, domains, turning, left_out = {}, {}, {}, {}
    for share in np.unique(share_M).tolist():
        rows = table[share_M == share]
        generals[share] = fit_one(CMR_GENERAL_CHANGE, rows, target=general)
        domains[share] = fit_one(CMR_DOMAIN_CHANGE, rows, target=domain)
        turning[share] = turning_point(generals[share], domains[share], multiplier)
        if refusal := _left_out(generals[share], turning[share], epsilon):
            left_out[share] = refusal
    used = {share: turn for share, turn in turning.items() if share not in left_out}
    return CriticalCurve(generals, domains, turning, left_out, _curve(used, seed) if len(used) >= 3 else None)


def _left_out(general: Fit, turn: Decision, epsilon: float) -> Refusal | None:
    if turn.refusal and turn.refusal.kind != "few_groups":
        return turn.refusal
    low, high = general.ranges["T"]
    if not low <= turn.value <= high:
        return Refusal(
            "no_turning_point",
            f"turns at {turn.value:.4g} tokens, outside the measured {low:.4g} to {high:.4g}; train longer",
        )
    if (change := float(general.predict({"T": turn.value}))) > epsilon:
        return Refusal(
            "infeasible", f"the general loss is up by {change:.4g} where it turns, more than epsilon = {epsilon:g}"
        )
    return None


def _curve(turning: dict[float, Decision], seed: int) -> Fit:
    """The law through (T0, R), refitted to each draw of the turning points that has at least three."""
    tokens_K, share_K = np.array([turn.value for turn in turning.values()]), np.array(list(turning))
    points = pd.DataFrame({"T": tokens_K, "R": share_K})
    curve = fit(CMR_CRITICAL, points, target="R", group=None, objective=least_squares(), bootstrap=0, seed=seed)
    if any(not len(turn.draws_B) for turn in turning.values()):
        return curve
    tokens_BxK = np.stack([turn.draws_B for turn in turning.values()], axis=1)
    usable_BxK = np.isfinite(tokens_BxK) & (tokens_BxK > 0)
    kept_B = usable_BxK.sum(axis=1) >= 3
    if kept_B.sum() < 2:
        return curve
    draws_BxP = _refits(curve, np.where(usable_BxK, tokens_BxK, tokens_K)[kept_B], share_K, usable_BxK[kept_B])
    refusals = tuple(refusal for refusal in curve.refusals if refusal.kind != "few_groups")
    return replace(curve, draws_BxP=draws_BxP, covariance_PxP=np.cov(draws_BxP.T), refusals=refusals)


def _refits(curve: Fit, tokens_BxK: np.ndarray, share_K: np.ndarray, weights_BxK: np.ndarray) -> np.ndarray:
    """Parameters of the critical law refitted to each row of turning points, [B, P]."""
    law, draws = curve.law, len(tokens_BxK)
    reference_I = np.array([np.log(tokens_BxK).mean()])
    data = solver.Data(
        {"T": tokens_BxK}, np.tile(share_K, (draws, 1)), np.ones_like(tokens_BxK), np.tile(reference_I, (draws, 1))
    )
    start_P = coordinates.from_parameters(law, np.array(list(curve.parameters.values())), reference_I)
    start_BxP = np.tile(start_P, (draws, 1))
    u_BxP, _ = solver.minimise(
        law, "raw", math.inf, data, start_BxP, weights_BxK.astype(np.float64), steps=100, tolerance=1e-8, own_data=True
    )
    with jax.enable_x64(True):
        return np.asarray(coordinates.natural_lanes(law, u_BxP, reference_I))
