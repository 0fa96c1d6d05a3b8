"""Laws ranked by the error on rows that no fit saw.

Letters: B draws with the estimate in front, H held-out rows, R resamples of curves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling import fitting
from scaling.fitting import Fit
from scaling.laws.law import Law

_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Scored:
    """A law fitted to part of one curve (or table) of a data set, and the RMSE of log loss on the rest.

    `error_B`: of the estimate, then of each bootstrap draw with the held-out rows drawn again.
    """

    data: str
    curve: str
    law: str
    fit: Fit
    error_B: np.ndarray
    seconds: float


def scored(data: str, curve: str, law: Law, table: pd.DataFrame, held_M: np.ndarray, **settings: object) -> Scored:
    """Fits `law` to the rows not held; `settings` go to `fitting.fit`."""
    began = time.perf_counter()
    fit = fitting.fit(law, table, group=None, bootstrap=_DRAWS, holdout=held_M, **settings)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    held = fit.points.held
    prediction_BxH = np.concatenate([fit.predict(held.inputs)[None], fit.predict_draws(held.inputs)])
    squared_BxH = np.log(prediction_BxH / held.target_M) ** 2
    pick_BxH = np.random.default_rng(0).integers(len(held), size=squared_BxH.shape)
    pick_BxH[0] = np.arange(len(held))
    error_B = np.sqrt(np.take_along_axis(squared_BxH, pick_BxH, axis=1).mean(axis=1))
    breaks = law.arguments.get("breaks")
    name = law.name if breaks is None else f"{law.name}, {breaks} break{'s' * (breaks != 1)}"
    return Scored(data, curve, name, fit, error_B, seconds)


def ranking(scores: Sequence[Scored]) -> pd.DataFrame:
    """One row a data set and law, best first: the mean over curves of the RMSE of log loss on the held-out rows.

    The interval (95%, percentile) resamples the curves and takes a bootstrap draw of each; `behind` is the error less
    that of the best law of the data set, with the interval of that difference, the same curves and draws in both.
    """
    frames = []
    for data in dict.fromkeys(score.data for score in scores):
        errors, sizes = {}, {}
        for law in dict.fromkeys(score.law for score in scores if score.data == data):
            mine = [score for score in scores if score.data == data and score.law == law]
            errors[law] = _resampled(mine)
            sizes[law] = mine
        best = min(errors, key=lambda law: errors[law][0])
        rows = [_ranked(data, law, errors[law], errors[best], sizes[law]) for law in errors]
        frames.append(pd.DataFrame(rows).sort_values("error"))
    return pd.concat(frames, ignore_index=True)


def _resampled(scores: Sequence[Scored]) -> np.ndarray:
    """Mean error over the curves: as estimated, then over resampled curves and draws."""
    error_CxB = np.stack([score.error_B for score in scores])
    rng, (curves, draws) = np.random.default_rng(1), error_CxB.shape
    curve_RxC = rng.integers(curves, size=(1000, curves))
    draw_RxC = rng.integers(1, draws, size=(1000, curves))
    return np.concatenate([[error_CxB[:, 0].mean()], error_CxB[curve_RxC, draw_RxC].mean(axis=1)])


def _ranked(
    data: str, law: str, error_R: np.ndarray, best_R: np.ndarray, scores: Sequence[Scored]
) -> dict[str, object]:
    low, high = np.quantile(error_R[1:], [0.025, 0.975])
    behind_low, behind_high = np.quantile((error_R - best_R)[1:], [0.025, 0.975])
    return {
        "data": data,
        "law": law,
        "parameters": len(scores[0].fit.parameters),
        "curves": len(scores),
        "held_out": sum(score.fit.held_out.points for score in scores if score.fit.held_out),
        "error": error_R[0],
        "low": low,
        "high": high,
        "behind": error_R[0] - best_R[0],
        "behind_low": behind_low,
        "behind_high": behind_high,
        "refused": sum(score.fit.status == "refused" for score in scores),
        "seconds": sum(score.seconds for score in scores),
    }
