"""How well the D-CPT law predicts a size, tokens and a ratio that it was not fitted to, against its rivals and guesses.

Letters: B draws, G trunks, H held-out rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.dcpt_runs import ROLES, Settings, late, log_error, of_role
from experiments.statistics import Interval
from scaling import fitting
from scaling.fitting import Comparison, Fit
from scaling.fitting.validation import group_sums, widened
from scaling.laws.mixture import D_CPT, D_CPT_L1, D_CPT_L4, D_CPT_L5
from scaling.laws.size import CHINCHILLA

RIVALS = (D_CPT, D_CPT_L1, D_CPT_L4, D_CPT_L5)
NO_SHARE = CHINCHILLA  # the guess that the share makes no difference: E + A/N^alpha + B/D^beta
PAPER = "Que et al. 2024"
WHAT = {"size": "a size not seen", "data": "tokens not seen", "ratio": "a ratio not seen"}
GUESSES = {"size": "the loss of the next smaller size", "data": "the last loss seen",
           "ratio": "the loss at the nearest ratio"}
_DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """One role and kind of extrapolation. `rows`: those held out, with `predicted`, `low`, `high` (of the law's curve)
    and `guess`. `gain`, `gain_over_no_share`: mean relative error of the guess, of the law without a share, less that
    of D-CPT.
    """

    role: str
    kind: str
    rivals: Comparison
    rows: pd.DataFrame
    r2: float
    gain: Interval
    gain_over_no_share: Interval


def hold_out(table: pd.DataFrame, settings: Settings) -> list[HeldOut]:
    """Every role and kind: the largest size, the last tokens of each branch, one ratio."""
    found = []
    for role in ROLES:
        rows = late(of_role(table, role, settings), settings)
        masks = {"size": rows.N == rows.N.max(), "data": rows.D > settings.held_from * rows.D.max(),
                 "ratio": np.isclose(rows.share, settings.held_share)}
        for kind, held in masks.items():
            found.append(_held_out(rows, np.asarray(held), role, kind, settings))
    return found


def _held_out(rows: pd.DataFrame, held_M: np.ndarray, role: str, kind: str, settings: Settings) -> HeldOut:
    rivals = fitting.compare(RIVALS, rows, holdout=held_M, group="trunk", stratum="N",
                             bootstrap=settings.bootstrap, level=settings.level)
    fit, held = rivals.fits[D_CPT.name], rows[held_M].reset_index(drop=True)
    inputs = held[["N", "D", "r"]]
    low_H, high_H = fit.interval(inputs, settings.level)
    held = held.assign(predicted=fit.predict(inputs), low=low_H, high=high_H,
                       guess=guesses(rows[~held_M], held, kind))
    guess_1xH = log_error(held.guess.to_numpy(), held.loss.to_numpy())[None]
    flat = fitting.fit(NO_SHARE, rows, holdout=held_M, group="trunk", stratum="N", bootstrap=settings.bootstrap)
    rest_H = held.loss - held.predicted
    return HeldOut(role, kind, rivals, held, 1 - float((rest_H**2).sum() / ((held.loss - held.loss.mean())**2).sum()),
                   gain(guess_1xH, errors(fit, held), held.trunk.to_numpy(), settings.level),
                   gain(errors(flat, held), errors(fit, held), held.trunk.to_numpy(), settings.level))


def guesses(seen: pd.DataFrame, held: pd.DataFrame, kind: str) -> np.ndarray:
    """A loss for each held-out row, of what was seen: the same ratio and tokens one size below; the same branch at its
    last tokens seen; the same size and tokens at the nearest ratio. Means over trunks but for the second.
    """
    if kind == "data":
        last = seen.sort_values("D").groupby("run_id").loss.last()
        return held.run_id.map(last).to_numpy()
    keys = ["N", "share", "D"]
    mean = seen.groupby(keys).loss.mean()
    column = "N" if kind == "size" else "share"
    known = np.sort(seen[column].unique())
    nearest = {value: known[np.argmin(np.abs(known - value))] for value in held[column].unique()}
    asked = held.assign(**{column: held[column].map(nearest)})[keys]
    return mean.reindex(pd.MultiIndex.from_frame(asked)).to_numpy()


def errors(fit: Fit, held: pd.DataFrame) -> np.ndarray:
    """Relative errors of the estimate, in front, and of every draw, [1 + B, H]."""
    inputs = held[[i.name for i in fit.law.inputs]]
    predicted_BxH = np.concatenate([fit.predict(inputs)[None], fit.predict_draws(inputs)])
    return log_error(predicted_BxH, held.loss.to_numpy())


def gain(guess_BxH: np.ndarray, law_BxH: np.ndarray, trunk_H: np.ndarray, level: float) -> Interval:
    """Mean error of a guess less that of the law, with the interval that counts held-out trunks and refits.

    Draws resample the trunks and take the errors of a random refit (the same for both, where the guess is a law too);
    the refits' mean shift, their own noise, is taken off; the interval is `widened` for few trunks.
    """
    gain_BxH = guess_BxH - law_BxH
    sums_BxG = group_sums(gain_BxH.T, trunk_H).T
    size_G = np.bincount(np.unique(trunk_H, return_inverse=True)[1])
    mean_B = sums_BxG.sum(axis=1) / size_G.sum()
    rng = np.random.default_rng(0)
    counts_DxG = rng.multinomial(len(size_G), np.full(len(size_G), 1 / len(size_G)), _DRAWS)
    refit_D = rng.integers(1, len(sums_BxG), _DRAWS)
    drawn_D = (counts_DxG * sums_BxG[refit_D]).sum(axis=1) / (counts_DxG @ size_G) - (mean_B[1:].mean() - mean_B[0])
    low_1, high_1 = widened(drawn_D[:, None], len(size_G), level)
    return Interval(float(mean_B[0]), float(low_1[0]), float(high_1[0]))


def claims(found: list[HeldOut]) -> list[Claim]:
    """Against the guess, against the law without a share, against the rival forms."""
    made = []
    for each in found:
        what = WHAT[each.kind]
        error = log_error(each.rows.predicted.to_numpy(), each.rows.loss.to_numpy()).mean()
        trunks = each.rows.trunk.nunique()
        for guess, interval in ((GUESSES[each.kind], each.gain), ("a law without the share", each.gain_over_no_share)):
            made.append(Claim(
                f"D-CPT predicts the {each.role} loss of {what} better than {guess}",
                f"{PAPER}, held-out {each.kind}", f"error {error:.2%}, gain {interval.value:+.2%} "
                f"[{interval.low:+.2%}, {interval.high:+.2%}], R^2 {each.r2:.3f}", *interval, trunks,
                verdict(interval.low, interval.high, 0.0)))
        made.append(_against_rivals(each, what, trunks))
    return made


def _against_rivals(each: HeldOut, what: str, trunks: int) -> Claim:
    """L3 less the best of the other forms, in held-out root mean square of log loss."""
    table = each.rivals.table
    own, rival = table[table.law == D_CPT.name].iloc[0], table[table.law != D_CPT.name].iloc[0]
    first = table.law.iloc[0] == D_CPT.name
    value = rival.held_rmse - own.held_rmse
    low, high = (rival.low, rival.high) if first else (-own.high, -own.low)
    return Claim(
        f"Form L3 predicts the {each.role} loss of {what} better than forms L1, L4 and L5 as we recall them",
        f"{PAPER}, choice of L3", f"rmse of log loss {own.held_rmse:.4f}, best other {rival.law} "
        f"{rival.held_rmse:.4f}, difference {value:+.4f} [{low:+.4f}, {high:+.4f}]", float(value), float(low),
        float(high), trunks, verdict(low, high, 0.0))
