"""Study: how the critical mixture ratio moves with tokens and model size, by the four CMR laws.

Gu et al. 2024 (arXiv 2407.17467), for each size: both losses against the ratio, the domain's and the general loss's
change against tokens at each ratio, the turning points T0(R) of the latter, and the critical ratio against tokens
through them. Beside it the weaker answer that needs no turning point: the largest ratio whose general loss is up by at
most the tolerance. Losses are held against the own trunk's loss. Bootstraps draw whole trunk seeds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments import cmr_claims
from experiments.branches import branches, changes, crossing, sharing
from experiments.claims import Claim
from experiments.statistics import Interval, t_interval
from scaling import fields, fitting
from scaling.fields import check, static
from scaling.fitting import Decision, Fit, Refusal
from scaling.fitting.cmr import CriticalCurve, critical_curve
from scaling.laws.mixture import CMR_RATIO
from scaling.store import Store


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `tolerance` in nats/token of general loss, as is the paper's 0.05."""

    name: str = static()
    general: str = static()
    target: str = static()
    tolerance: float = static()
    widths: tuple[int, ...] = static()
    seeds: tuple[int, ...] = static()
    shares: tuple[float, ...] = static()
    branch_steps: int = static()
    branch_evaluations: tuple[int, ...] = static()
    branch_peak: float = static()
    answer_steps: tuple[int, ...] = static()
    bootstrap: int = static()
    level: float = static()

    def __post_init__(self) -> None:
        logged = {*self.branch_evaluations, self.branch_steps}
        check(set(self.answer_steps) <= logged and len(self.answer_steps) > 1, "study.answer_steps", self.answer_steps,
              f"two or more of the evaluated steps {sorted(logged)}", "choose among them")


@dataclasses.dataclass(frozen=True)
class Size:
    """What one size shows. By tokens T after the branch: the critical ratio of the paper, and the ratio within the
    tolerance, by law and measured (where straight lines between the runs of one trunk cross it, over trunks).
    """

    width: int
    parameters: float
    curve: CriticalCurve
    critical: dict[float, Decision]
    within: dict[float, Decision]
    crossings: dict[float, Interval]
    ratio_laws: dict[str, Fit]  # at the end of the branches: "domain" loss, and "general" change


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes. `unseen`, `quality`, `cost`: one row a held-out ratio, a law in tokens, a size."""

    settings: Settings
    sizes: list[Size]
    unseen: pd.DataFrame
    quality: pd.DataFrame
    cost: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit the four laws to every size, decide the critical ratios, test the paper's claims."""
    settings = fields.convert(Settings, study, "study")
    table = branches(store, settings.target)
    sizes = [one_size(rows, settings) for _, rows in table.groupby("N")]
    unseen, quality, cost = unseen_ratios(table, settings), fit_quality(table, sizes, settings), sharing(store)
    claims = [
        *cmr_claims.unseen_ratio(unseen, settings.level),
        *cmr_claims.better_than_lines(unseen, settings.level),
        *cmr_claims.laws_in_tokens(quality, settings.level),
        cmr_claims.feasible(sizes, min(share for share in settings.shares if share > 0)),
        cmr_claims.grows_with_tokens(sizes, settings.level),
        *cmr_claims.grows_with_size(sizes, settings.level),
        cmr_claims.sharing_saves(cost, settings.level),
    ]
    return Findings(settings, sizes, unseen, quality, cost, claims, _not_identified(sizes))


def one_size(rows: pd.DataFrame, settings: Settings) -> Size:
    """The laws and ratios of the branches of one size."""
    wide = changes(rows, settings.general, settings.target)
    curve = critical_curve(wide, group="seed", epsilon=settings.tolerance, bootstrap=settings.bootstrap)
    general = rows[rows.domain == settings.general]
    asked = general[general.step.isin(settings.answer_steps) | general["last"]]
    critical, within, crossings = {}, {}, {}
    for tokens in np.sort(asked.D.unique()).astype(float).tolist():
        part = asked[tokens == asked.D]
        law = fit_ratio(part, "change", settings)
        within[tokens] = fitting.critical_ratio(law, settings.tolerance, level=settings.level)
        crossed = [crossing(of_trunk, settings.tolerance) for _, of_trunk in part.groupby("seed")]
        known = [share for share in crossed if np.isfinite(share)]
        crossings[tokens] = t_interval(known, settings.level) if known else Interval(*[np.nan] * 3)
        if curve.curve is not None and part.step.iloc[0] in settings.answer_steps:
            critical[tokens] = critical_at(curve, tokens, settings.level)
    last = rows[rows["last"]]
    laws = {"domain": fit_ratio(last[last.domain == settings.target], "loss", settings),
            "general": fit_ratio(last[last.domain == settings.general], "change", settings)}
    return Size(int(rows.width.iloc[0]), float(rows.N.iloc[0]), curve, critical, within, crossings, laws)


def fit_ratio(rows: pd.DataFrame, target: str, settings: Settings, bootstrap: bool = True) -> Fit:
    """The CMR ratio law through the branches of one size at one time, R > 0, by least squares."""
    return fitting.fit(CMR_RATIO, rows[rows.share > 0], columns={"R": "share"}, target=target, group="seed",
                       objective=fitting.least_squares(), bootstrap=settings.bootstrap if bootstrap else 0)


def critical_at(curve: CriticalCurve, tokens: float, level: float) -> Decision:
    """The law through the turning points at `tokens`; refused beyond the turning points that it goes through."""
    decision = curve.at(tokens, level)
    turned = [turn.value for share, turn in curve.turning.items() if share not in curve.left_out]
    if decision.refusal is None and not min(turned) <= tokens <= max(turned):
        reason = (f"{tokens:,.0f} tokens lie beyond the turning points, {min(turned):,.0f} to {max(turned):,.0f}; add "
                  "ratios that turn there")
        return dataclasses.replace(decision, refusal=Refusal("extrapolated", reason))
    return decision


def unseen_ratios(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Each inner ratio's last loss, mean over trunks, against what the others say of it.

    Columns: N, width, role, share, loss, `law` (the ratio law fitted without that ratio), `line` (straight between the
    neighbouring ratios), `variance` of law - loss if the law is right: s^2/n (1 + h), with s the standard deviation of
    n runs around the means of their ratio and trunk, and h the leverage of the ratio on the law's fit to the others.
    """
    found = []
    last = table[table["last"] & (table.share > 0)]
    for role, domain in (("domain", settings.target), ("general", settings.general)):
        for size, rows in last[last.domain == domain].groupby("N"):
            runs_RxS = rows.pivot(index="share", columns="seed", values="loss").dropna(axis=1)
            mean_R = runs_RxS.mean(axis=1)
            variance = variance_of_means(runs_RxS.to_numpy())
            for before, share, after in zip(mean_R.index, mean_R.index[1:], mean_R.index[2:], strict=False):
                law = fit_ratio(rows[rows.share != share], "loss", settings, bootstrap=False)
                others_R = mean_R.index.to_numpy()[mean_R.index != share]
                found.append({"N": size, "width": rows.width.iloc[0], "role": role, "share": share,
                              "loss": mean_R[share], "law": float(law.predict({"R": share})),
                              "line": float(np.interp(share, [before, after], mean_R[[before, after]])),
                              "variance": variance * (1 + leverage(law.parameters, others_R, share))})
    return pd.DataFrame(found)


def variance_of_means(runs_RxS: np.ndarray) -> float:
    """Variance of a ratio's mean over trunks, from what is left when every ratio and trunk has its own mean."""
    rest_RxS = runs_RxS - runs_RxS.mean(axis=1, keepdims=True) - runs_RxS.mean(axis=0) + runs_RxS.mean()
    ratios, trunks = runs_RxS.shape
    if trunks < 2:
        return float("nan")
    return float((rest_RxS**2).sum()) / ((ratios - 1) * (trunks - 1) * trunks)


def leverage(parameters: Mapping[str, float], share_R: np.ndarray, share: float) -> float:
    """Variance of alpha R^s + beta at a ratio over that of one mean, the law fitted to means at other ratios."""
    def slopes_Rx3(at_R: np.ndarray) -> np.ndarray:
        power_R = at_R ** parameters["s"]
        return np.stack([power_R, parameters["alpha"] * power_R * np.log(at_R), np.ones_like(at_R)], axis=1)

    own_3 = slopes_Rx3(np.array([share]))[0]
    fitted_Rx3 = slopes_Rx3(share_R)
    return float(own_3 @ np.linalg.pinv(fitted_Rx3.T @ fitted_Rx3) @ own_3)


def fit_quality(table: pd.DataFrame, sizes: list[Size], settings: Settings) -> pd.DataFrame:
    """R^2 = 1 - SS_residual/SS_total of the laws in tokens on the mean curve over trunks: N, share, role, r2."""
    found = []
    for size in sizes:
        rows = table[(size.parameters == table.N) & (table.share > 0)]
        for role, domain, fits in (("domain", settings.target, size.curve.domain),
                                   ("general", settings.general, size.curve.general)):
            for share, fit in fits.items():
                mean_T = rows[(rows.domain == domain) & (rows.share == share)].groupby("D").change.mean()
                residual_T = mean_T.to_numpy() - fit.predict({"T": mean_T.index.to_numpy(np.float64)})
                found.append({"N": size.parameters, "share": share, "role": role,
                              "r2": 1 - float((residual_T**2).sum()) / float(mean_T.var(ddof=0) * len(mean_T))})
    return pd.DataFrame(found)


def _not_identified(sizes: list[Size]) -> list[str]:
    """What has no answer, and why."""
    notes = []
    for size in sizes:
        notes += [f"width {size.width}, ratio {share:g} has no turning point to use: {refusal}"
                  for share, refusal in size.curve.left_out.items()]
        if size.curve.curve is None:
            notes.append(f"width {size.width}: fewer than three ratios turn within the measured tokens, so there is no "
                         "law of the critical ratio")
        for way, decisions in (("critical ratio", size.critical), ("ratio within the tolerance", size.within)):
            notes += [f"width {size.width}, {way} at {tokens:,.0f} tokens: {decision.refusal}"
                      for tokens, decision in decisions.items() if decision.refusal]
        fits = [*size.curve.general.values(), *size.curve.domain.values(), *size.ratio_laws.values()]
        kinds = sorted({refusal.kind for fit in fits for refusal in fit.refusals})
        count = functools.reduce(lambda total, fit: total + bool(fit.refusals), fits, 0)
        if count:
            notes.append(f"width {size.width}: {count} of {len(fits)} laws in tokens or ratio have parameters that are "
                         f"not known ({', '.join(kinds)}); their curves may be")
    return notes
