"""Study: how much of a new domain continual pre-training may hold before the old one is lost.

Trunks are trained on the general domain; each is continued at several shares of the target domain. Two families of
laws answer: the CMR laws, one fit a size (Gu et al. 2024, arXiv 2407.17467), and D-CPT, one fit over sizes (Que et
al. 2024, arXiv 2406.01375). Losses are held against the own trunk's loss, so that what differs between trunks cancels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.branches import branches, changes, crossing
from experiments.claims import Claim, verdict
from experiments.statistics import mean_interval
from scaling import fields, fitting
from scaling.fields import static
from scaling.fitting import Decision, Fit
from scaling.fitting.cmr import CriticalCurve, critical_curve
from scaling.laws.law import TableError
from scaling.laws.mixture import CMR_RATIO, D_CPT
from scaling.store import Store

UNSEEN_RATIO_ERROR = 5e-4  # Gu et al. 2024, table 2: an unseen ratio's loss within 0.05%


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the configuration says of the study; `tolerance` in nats/token of general loss."""

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
    fit_from: float = static()
    bootstrap: int = static()
    level: float = static()


@dataclasses.dataclass(frozen=True)
class SizeAnswer:
    """Critical shares of one size by each way, at the end of the branches."""

    width: int
    parameters: float
    measured: dict[str, float]  # by trunk seed: where the line through the measured changes crosses the tolerance
    cmr: Decision
    d_cpt: Decision
    turning: Decision | None  # the paper's procedure from turning points in tokens; None where too few ratios turn
    turning_note: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes."""

    settings: Settings
    tokens: float
    answers: list[SizeAnswer]
    fits: dict[str, Fit]
    held_out: pd.DataFrame
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit both families of laws, decide the critical share of every size, test the papers' claims."""
    settings = settings_of(study)
    table = branches(store, settings.target)
    fits, held_out = fit_d_cpt(table, settings)
    answers, cmr_fits = [], {}
    for size in (part for _, part in table.groupby("N")):
        fit = fit_cmr(size, settings)
        cmr_fits[f"cmr-ratio width {size.width.iloc[0]}"] = fit
        answers.append(answer(size, fit, fits["d-cpt general"], settings))
    fits |= cmr_fits
    claims = [unseen_ratio(table, settings), grows_with_size(answers, settings), *held_out_size(held_out, settings)]
    return Findings(settings, float(table.D.max()), answers, fits, held_out, claims, _not_identified(fits, answers))


def fit_d_cpt(table: pd.DataFrame, settings: Settings) -> tuple[dict[str, Fit], pd.DataFrame]:
    """D-CPT for the target and the general loss, on all sizes and without the largest; predictions of the largest."""
    late = table[table.D >= settings.fit_from * table.groupby("run_id").D.transform("max")]
    fits, predictions = {}, []
    for role, domain in (("target", settings.target), ("general", settings.general)):
        rows = late[late.domain == domain].reset_index(drop=True)
        rows["r"] = rows.share if role == "target" else 1 - rows.share  # share of the corpus that is measured
        fit = functools.partial(fitting.fit, D_CPT, rows, group="run_id", stratum="N", bootstrap=settings.bootstrap)
        fits[f"d-cpt {role}"] = fit()
        smaller = fit(holdout=fitting.largest("N"))
        fits[f"d-cpt {role}, largest size held out"] = smaller
        predictions.append(_predictions(rows, smaller).assign(role=role))
    return fits, pd.concat(predictions, ignore_index=True)


def _predictions(rows: pd.DataFrame, smaller: Fit) -> pd.DataFrame:
    """Last loss of the largest size: measured, as predicted from smaller sizes, and as the next smaller size had it."""
    sizes = np.sort(rows.N.unique())
    last = rows[rows["last"]]
    largest = last[last.N == sizes[-1]].reset_index(drop=True)
    below = last[last.N == sizes[-2]].groupby("share").loss.mean()
    low, high = smaller.interval(largest[["N", "D", "r"]])
    return largest.assign(predicted=smaller.predict(largest[["N", "D", "r"]]), low=low, high=high,
                          next_smaller=largest.share.map(below))


def fit_cmr(size: pd.DataFrame, settings: Settings) -> Fit:
    """Change of the general loss at the end against the target share, R > 0, one size."""
    last = size[size["last"] & (size.domain == settings.general) & (size.share > 0)]
    return fitting.fit(CMR_RATIO, last, columns={"R": "share"}, target="change", group="run_id",
                       objective=fitting.least_squares(), bootstrap=settings.bootstrap)


def answer(size: pd.DataFrame, cmr: Fit, general: Fit, settings: Settings) -> SizeAnswer:
    """The critical share of one size, by measurement, by the CMR laws and by D-CPT."""
    rows = size[size.domain == settings.general]
    limit = float(rows.start.groupby(rows.seed).first().mean()) + settings.tolerance
    parameters = float(size.N.iloc[0])
    inputs = {"N": parameters, "D": float(rows.D.max())}
    turning, note = _turning(size, settings)
    return SizeAnswer(
        int(size.width.iloc[0]), parameters,
        {str(seed): crossing(part[part["last"]], settings.tolerance) for seed, part in rows.groupby("seed")},
        fitting.critical_ratio(cmr, settings.tolerance, level=settings.level),
        fitting.critical_ratio(general, limit, inputs, level=settings.level), turning, note)


def _turning(size: pd.DataFrame, settings: Settings) -> tuple[Decision | None, str]:
    """The CMR from turning points in tokens (Gu et al., five steps), or why there is none."""
    wide = changes(size, settings.general, settings.target)
    try:
        curve: CriticalCurve = critical_curve(wide, group="seed", epsilon=settings.tolerance,
                                              bootstrap=settings.bootstrap)
    except TableError as error:
        return None, str(error)
    if curve.curve is None:
        turned = len(curve.turning) - len(curve.left_out)
        return None, f"{turned} of {len(curve.turning)} shares turn within the measured tokens, 3 are needed"
    return curve.at(float(wide["T"].max()), settings.level), ""


def unseen_ratio(table: pd.DataFrame, settings: Settings) -> Claim:
    """Each inner share's last target loss predicted from the others by the CMR ratio law, all sizes."""
    errors = []
    last = table[table["last"] & (table.domain == settings.target) & (table.share > 0)]
    for _, size in last.groupby("N"):
        for share in np.sort(size.share.unique())[1:-1]:
            fit = fitting.fit(CMR_RATIO, size[size.share != share], columns={"R": "share"}, group="run_id",
                              objective=fitting.least_squares(), bootstrap=0)
            seen = size[size.share == share].loss.mean()
            errors.append(abs(float(fit.predict({"R": share})) / seen - 1))
    mean, low, high = mean_interval(np.array(errors), settings.level)
    return Claim("The CMR ratio law predicts the target loss at an unseen share within 0.05%",
                 "Gu et al. 2024, table 2", f"mean error {mean:.3%} [{low:.3%}, {high:.3%}]", mean, low, high,
                 len(errors), verdict(-high, -low, -UNSEEN_RATIO_ERROR))


def grows_with_size(answers: list[SizeAnswer], settings: Settings) -> Claim:
    """Critical share of the largest size less that of the smallest, with the interval of the difference of draws."""
    small, large = answers[0].cmr, answers[-1].cmr
    pairs = min(len(small.draws_B), len(large.draws_B))
    tail = (1 - settings.level) / 2
    difference = large.value - small.value
    low, high = np.quantile(large.draws_B[:pairs] - small.draws_B[:pairs], [tail, 1 - tail]) if pairs else (np.nan,) * 2
    refused = small.refusal or large.refusal
    said = "inconclusive" if refused else verdict(float(low), float(high), 0.0)
    widths = f"width {answers[-1].width} less width {answers[0].width}"
    return Claim("The critical share grows with model size", "Gu et al. 2024, 29.8% at 460M to 47.8% at 3.1B",
                 f"{widths}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]",
                 difference, float(low), float(high), len(answers), said)


def held_out_size(held_out: pd.DataFrame, settings: Settings) -> list[Claim]:
    """D-CPT's error at the size it never saw against the guess that the next smaller size's loss stays."""
    claims = []
    for role, rows in held_out.groupby("role"):
        law, guess = (np.abs(rows[column] / rows.loss - 1) for column in ("predicted", "next_smaller"))
        mean, low, high = mean_interval((guess - law).to_numpy(), settings.level)
        claims.append(Claim(
            f"D-CPT predicts the {role} loss of a larger model better than the loss of the largest seen",
            "Que et al. 2024, held-out size", f"error {law.mean():.2%} against {guess.mean():.2%}, gain {mean:+.2%} "
            f"[{low:+.2%}, {high:+.2%}], over the branches of one size", mean, low, high, len(rows),
            verdict(low, high, 0.0)))
    return claims


def _misses(decision: Decision, measured: Mapping[str, float]) -> bool:
    """Whether an interval lies wholly beside the range that the trunks measured."""
    known = [share for share in measured.values() if not math.isnan(share)]
    return bool(known) and (decision.low > max(known) or decision.high < min(known))


def _not_identified(fits: Mapping[str, Fit], answers: list[SizeAnswer]) -> list[str]:
    """Every refusal in words, and what the design itself cannot tell."""
    notes = [f"{name}: {refusal}" for name, fit in fits.items() for refusal in fit.refusals]
    for found in answers:
        notes += [f"width {found.width}, {way}: {decision.refusal}" for way, decision in
                  (("CMR ratio law", found.cmr), ("D-CPT", found.d_cpt)) if decision.refusal]
        notes += [f"width {found.width}, {way}: {decision.low:.0%} to {decision.high:.0%} misses what the trunks "
                  f"measured ({', '.join(f'{share:.0%}' for share in found.measured.values())}): its interval is "
                  "right only if the law is, and here the law misfits"
                  for way, decision in (("CMR ratio law", found.cmr), ("D-CPT", found.d_cpt))
                  if decision.refusal is None and _misses(decision, found.measured)]
        if found.turning is None:
            notes.append(f"width {found.width}, CMR from turning points: {found.turning_note}")
    seeds = len(answers[0].measured)
    return [*notes, f"Variation between trunks rests on {seeds} trunks a size; the intervals are over branches, given "
            "these trunks"]
